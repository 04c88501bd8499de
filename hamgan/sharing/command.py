"""Read the command line of `hamgan export`."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hamgan.errors import ConfigError, refuse_renamed
from hamgan.sampling.outputs import check_parents
from hamgan.sampling.places import check_place

if TYPE_CHECKING:
    from hamgan.sampling import LoadedGenerator


DESCRIPTION = """Share a trained generator: as ONNX, as a torch.export program, as a folder or hub repository.

  hamgan export --checkpoint runs/fashion --output generator.onnx
  hamgan export --checkpoint runs/fashion --output generator.pt2
  hamgan export --checkpoint runs/fashion --output a_new_folder --license cc-by-4.0
  hamgan export --checkpoint runs/fashion --push owner/name
"""


def export_parser(prog: str) -> argparse.ArgumentParser:
    """Return a parser of all options."""
    parser = argparse.ArgumentParser(
        prog=prog, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="run, checkpoint folder, generator.safetensors, or owner/name on a hub")
    add(
        "--output",
        type=Path,
        help="generator.onnx, generator.pt2 (torch.export), or a new folder with weights and model card",
    )
    add(
        "--push",
        metavar="OWNER/NAME",
        help="publish such a folder on the hub ($HF_ENDPOINT; log in with `hf auth login`)",
    )
    add("--private", action="store_true", help="make the repository of --push private")
    add("--license", help="license of the weights, for the model card: mit, cc-by-4.0, ... (default: unknown)")
    return parser


def main(arguments: Sequence[str], prog: str = "hamgan export") -> None:
    """Write or publish what the arguments ask for; raises ConfigError for bad usage."""
    refuse_renamed(arguments, {"--out": "--output"})
    options = export_parser(prog).parse_args(arguments)
    _check(options)
    check_place(options.checkpoint)

    from hamgan.sampling import load_generator
    from hamgan.sampling.hub import check_login

    if options.push:
        check_login(None)
    generator = load_generator(options.checkpoint, "cpu")
    if options.output:
        _write(generator, options.output, options.push, options.license)
    if options.push:
        from hamgan.sharing.folder import push_to_hub

        address = push_to_hub(generator, options.push, private=options.private or None, license=options.license)
        print(f"published {address}")


def _check(options: argparse.Namespace) -> None:
    """Raise ConfigError for whatever would fail after the work is done."""
    if not options.output and not options.push:
        raise ConfigError("nothing to do: name --output FILE_OR_FOLDER, --push OWNER/NAME or both")
    if options.private and not options.push:
        raise ConfigError("--private is for --push")
    if options.output and options.output.suffix.lower() not in ("", ".onnx", ".pt2"):
        raise ConfigError(
            f"{options.output}: models are written as .onnx or .pt2; a name without an ending is a folder"
        )
    if options.output:
        check_parents(options.output)
    if options.output and options.output.exists() and (options.output.suffix or not options.output.is_dir()):
        raise ConfigError(f"{options.output} exists already; choose another --output, or remove it first")


def _write(generator: "LoadedGenerator", output: Path, name: str | None, licence: str | None) -> None:
    from hamgan.sharing.folder import save_pretrained
    from hamgan.sharing.formats import export_onnx, export_program

    exports: dict[str, Callable[[LoadedGenerator, Path], float]] = {".onnx": export_onnx, ".pt2": export_program}
    export = exports.get(output.suffix.lower())
    if export is None:
        save_pretrained(generator, output, license=licence, name=name)
        print(f"wrote {output}: weights, model card and sheet")
    else:
        print(f"wrote {output}; its images are within {export(generator, output):.1g} of PyTorch's")
