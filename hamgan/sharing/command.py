"""The command line of scripts/export.py."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hamgan.config import ConfigError

if TYPE_CHECKING:
    from hamgan.sampling.generator import LoadedGenerator


def export_parser(description: str | None = None) -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        prog="export.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="run, checkpoint folder, generator.safetensors, or owner/name on a hub")
    add("--out", type=Path, help="generator.onnx, generator.pt2 (torch.export), or a new folder as a hub shows it")
    add("--push", metavar="OWNER/NAME", help="publish that folder on the hub ($HF_ENDPOINT; log in by `hf auth login`)")
    add("--private", action="store_true", help="a repository that --push makes is seen by its owner only")
    add("--license", help="of the weights, for the model card: mit, cc-by-4.0, ... (default: unknown)")
    return parser


def main(arguments: Sequence[str] | None = None, description: str | None = None) -> None:
    """Write or publish what the arguments ask for; ConfigError (a sentence) for what cannot be."""
    options = export_parser(description).parse_args(arguments)
    _check(options)

    from hamgan.sampling.loading import load_generator
    from hamgan.sharing.hub import check_login

    if options.push:
        check_login(None)
    generator = load_generator(options.checkpoint, "cpu")
    if options.out:
        _write(generator, options.out, options.push, options.license)
    if options.push:
        address = generator.push_to_hub(options.push, private=options.private or None, license=options.license)
        print(f"published {address}")


def _check(options: argparse.Namespace) -> None:
    """Raise ConfigError for whatever would fail after the work is done."""
    if not options.out and not options.push:
        raise ConfigError("nothing to do: name --out FILE_OR_FOLDER, --push OWNER/NAME or both")
    if options.private and not options.push:
        raise ConfigError("--private is for --push")
    if options.out and options.out.suffix.lower() not in ("", ".onnx", ".pt2"):
        raise ConfigError(f"{options.out}: models are written as .onnx or .pt2; a name without an ending is a folder")
    if options.out and options.out.exists() and (options.out.suffix or not options.out.is_dir()):
        raise ConfigError(f"{options.out} exists already; choose another --out, or remove it first")


def _write(generator: "LoadedGenerator", out: Path, name: str | None, licence: str | None) -> None:
    from hamgan.sharing import export_onnx, export_program, save_folder

    exports: dict[str, Callable[[LoadedGenerator, Path], float]] = {".onnx": export_onnx, ".pt2": export_program}
    export = exports.get(out.suffix.lower())
    if export is None:
        save_folder(generator, out, name, licence)
        print(f"wrote {out}: weights, model card and sheet")
    else:
        print(f"wrote {out}; its images are within {export(generator, out):.1g} of PyTorch's")
