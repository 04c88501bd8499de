"""Run the commands of `hamgan segment` that take no data: convert, export and cost."""

import re
from collections.abc import Sequence
from pathlib import Path

from hamgan.config import preset_names
from hamgan.config.help import asked_topic, help_text
from hamgan.errors import ConfigError
from hamgan.segmentation.config import SEGMENTATION, load_config
from hamgan.segmentation.options import Parser

Arguments = Sequence[str]


def run_convert(arguments: Arguments, prog: str) -> None:
    """Turn a segmenter of the official code or MMSegmentation into a file of ours."""
    parser = Parser(prog=prog, description="Turn a segmenter of Enjoy-Hamburger or MMSegmentation into a file of ours.")
    parser.add_argument("file", type=Path, metavar="FILE", help=".pth of a trainer, or .safetensors of its state dict")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="segmenter.safetensors to write")
    text = "preset or YAML file of the network (default: the preset that fits)"
    parser.add_argument("--config", metavar="FILE|PRESET", help=text)
    text = "configuration that the weights do not tell, such as head.hamburger.rank=16; needs --config"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    options = parser.parse(arguments)
    if options.set and not options.config:
        raise ConfigError(f"--set changes a configuration: name it with --config, such as {_presets()}")
    config = load_config(options.config, options.set) if options.config else None
    from hamgan.segmentation.convert import convert_file
    from hamgan.segmentation.storing import read_header

    print(convert_file(options.file, options.output, config))
    header = read_header(options.output)
    print(f"network  {header.config.name}, {header.config.data.num_classes} classes")
    print(f"wrote {options.output}; measure it: hamgan segment evaluate --checkpoint {options.output} --data FOLDER")


def run_export(arguments: Arguments, prog: str) -> None:
    """Write a segmenter as an ONNX model."""
    parser = Parser(prog=prog, description="Write a segmenter as an ONNX model of any image size, and check it first.")
    text = "run folder, segmenter.safetensors or owner/name of a hub"
    parser.add_argument("--checkpoint", required=True, help=text)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="segmenter.onnx to write")
    options = parser.parse(arguments)
    if options.output.suffix.lower() != ".onnx":
        raise ConfigError(f"--output {options.output}: a segmenter is written as .onnx")
    if options.output.exists():
        raise ConfigError(f"--output {options.output} exists already; choose another, or remove it first")
    from hamgan.segmentation.export import export_onnx
    from hamgan.segmentation.loading import load_segmenter

    difference = export_onnx(load_segmenter(options.checkpoint, "cpu"), options.output)
    print(f"wrote {options.output}; its logits are within {difference:.1g} of PyTorch's, of which the largest is 1")


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
