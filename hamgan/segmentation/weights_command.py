"""Run the commands of `hamgan segment` that take no data: convert, export and cost."""

import re
from collections.abc import Sequence
from pathlib import Path

from hamgan.config import preset_names
from hamgan.config.help import asked_topic, help_text
from hamgan.convert.places import check_file_exists
from hamgan.errors import ConfigError
from hamgan.sampling.places import check_place
from hamgan.segmentation.config import SEGMENTATION, load_config
from hamgan.segmentation.options import Parser

Arguments = Sequence[str]


def run_convert(arguments: Arguments, prog: str) -> None:
    """Convert a segmenter of the official code or MMSegmentation to segmenter.safetensors."""
    parser = Parser(
        prog=prog, description="Convert a segmenter of Enjoy-Hamburger or MMSegmentation to segmenter.safetensors."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="checkpoint .pth, or its state dict as .safetensors")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="segmenter.safetensors to write")
    text = "preset or YAML file of the network (default: the preset with these shapes)"
    parser.add_argument("--config", metavar="FILE|PRESET", help=text)
    text = "configuration that the weights do not reveal, such as head.hamburger.rank=16; needs --config"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    options = parser.parse(arguments)
    if options.set and not options.config:
        raise ConfigError(f"--set changes a configuration: name it with --config, such as {_presets()}")
    check_file_exists(options.file)
    config = load_config(options.config, options.set) if options.config else None
    from hamgan.segmentation.convert import convert_file
    from hamgan.segmentation.storing import read_header

    print(convert_file(options.file, options.output, config))
    header = read_header(options.output)
    print(f"network  {header.config.name}, {header.config.data.num_classes} classes")
    print(f"wrote {options.output}; measure it: hamgan segment evaluate --checkpoint {options.output} --data FOLDER")


def run_export(arguments: Arguments, prog: str) -> None:
    """Write a segmenter as an ONNX model or a folder for a hub, or publish it there."""
    description = "Share a segmenter: as an ONNX model for any image size, as a folder or hub repository."
    parser = Parser(prog=prog, description=description)
    text = "run folder, segmenter.safetensors or owner/name on a hub"
    parser.add_argument("--checkpoint", required=True, help=text)
    text = "segmenter.onnx, or a new folder with weights and model card"
    parser.add_argument("--output", type=Path, metavar="PATH", help=text)
    text = "publish such a folder on the hub ($HF_ENDPOINT; log in with `hf auth login`)"
    parser.add_argument("--push", metavar="OWNER/NAME", help=text)
    parser.add_argument("--private", action="store_true", help="make the repository of --push private")
    parser.add_argument(
        "--license", help="license of the weights, for the model card: mit, cc-by-4.0, ... (default: unknown)"
    )
    options = parser.parse(arguments)
    check_place(options.checkpoint)
    _check_export(options.output, options.push, options.private)
    from hamgan.segmentation.loading import load_segmenter
    from hamgan.segmentation.publishing import push_to_hub, save_folder

    if options.push:
        from hamgan.sampling.hub import check_login

        check_login(None)
    loaded = load_segmenter(options.checkpoint, "cpu")
    if options.output and options.output.suffix:
        from hamgan.segmentation.export import export_onnx

        difference = export_onnx(loaded, options.output)
        print(f"wrote {options.output}; its logits are within {difference:.1g} of PyTorch's, of which the largest is 1")
    elif options.output:
        save_folder(loaded, options.output, name=options.push, license=options.license)
        print(f"wrote {options.output}: weights and model card")
    if options.push:
        address = push_to_hub(loaded, options.push, private=options.private or None, license=options.license)
        print(f"published {address}")


def _check_export(output: Path | None, push: str | None, private: bool) -> None:
    """Raise ConfigError for whatever would fail after the work is done."""
    if not output and not push:
        raise ConfigError("nothing to do: name --output FILE_OR_FOLDER, --push OWNER/NAME or both")
    if private and not push:
        raise ConfigError("--private is for --push")
    if output and output.suffix.lower() not in ("", ".onnx"):
        raise ConfigError(f"--output {output}: a segmenter is written as .onnx; a name without an ending is a folder")
    if output and output.exists() and (output.suffix or not output.is_dir()):
        raise ConfigError(f"--output {output} exists already; choose another, or remove it first")


def run_cost(arguments: Arguments, prog: str) -> None:
    """Count a network's parameters and multiplications."""
    description = "Count parameters and multiplications: as publications count them, and as this code makes them."
    parser = SEGMENTATION.parser(prog=prog, description=description)
    parser.add_argument("--size", default="512x512", metavar="HxW", help="image size (default: 512x512)")
    topic = asked_topic(list(arguments))
    if topic is not None:
        first = ("encoder.name", "head.kind", "head.channels", "data.num_classes")
        print(help_text(parser, topic, SEGMENTATION, first))
        return
    config, options = SEGMENTATION.parse(arguments, parser)
    height, width = _size(str(options.size))
    if not any(argument.partition("=")[0] == "--config" for argument in arguments):
        raise ConfigError(f"{prog}: --config is missing: name a YAML file or one of {_presets()}")
    if config.data.num_classes is None:
        raise ConfigError("the classifier's size is not known: name --data.num_classes N")
    from hamgan.segmentation.cost import measure_cost

    print(f"{config.name}, {config.data.num_classes} classes")
    print("\n".join(measure_cost(config, height, width).lines()))


def _presets() -> str:
    return ", ".join(preset_names(SEGMENTATION.section))


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not found or min(sides := (int(found[1]), int(found[2] or found[1]))) < 32:
        raise ConfigError(f"--size {text} is no image size such as 512x2048, of 32 and more")
    return sides
