"""Define the options of `hamgan segment evaluate` and `predict`: those of a run's ``eval`` section, and their own."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

from hamgan.config.ranges import require
from hamgan.errors import ConfigError, did_you_mean
from hamgan.segmentation.config import validate_evaluation
from hamgan.segmentation.schema import LAYOUTS, DataConfig, EvalConfig, SegmentationConfig

PUBLISHED_SCALES = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
"""Scales of published multi-scale numbers, each also mirrored."""
NO_SIZE = 0


class Parser(argparse.ArgumentParser):
    """Raise ConfigError for bad usage instead of printing the usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse the arguments; ConfigError for an unknown option names the nearest one."""
        known = [name for name in self._option_string_actions if name.startswith("--")]
        for name in (argument.partition("=")[0] for argument in arguments if argument.startswith("--")):
            if name not in known:
                raise ConfigError(f"unknown option {name}{did_you_mean(name, known)}")
        return self.parse_args(arguments)


def add_inference(parser: argparse.ArgumentParser) -> None:
    """Add the options of prediction; without them the run's ``eval`` section decides."""
    group = parser.add_argument_group("prediction (default: the run's eval section)")
    add = group.add_argument
    add("--scales", type=_numbers, metavar="A,B,...", help="scales whose probabilities are averaged")
    add("--flip", action=argparse.BooleanOptionalAction, help="average with the prediction of the mirrored picture")
    add(
        "--multi-scale",
        action="store_true",
        help="the published scales 0.5, 0.75, 1, 1.25, 1.5, 1.75, each mirrored too",
    )
    add(
        "--short-side", type=_size, metavar="PX|none", help="shorter side after resizing; none keeps the picture's size"
    )
    add("--long-side", type=int, metavar="PX", help="longest side after resizing")
    add("--size-divisor", type=_size, metavar="N|none", help="stretch both sides up to multiples of N")
    add("--mode", choices=("whole", "slide"), help="predict the whole picture at once, or overlapping windows")
    add("--window", type=int, metavar="PX", help="height and width of a window")
    add("--stride", type=int, metavar="PX", help="distance between windows")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options of the data set; without them the run's own data is used."""
    group = parser.add_argument_group("data (default: the run's)")
    group.add_argument("--data", metavar="SOURCE", help="land, land17, mosaic or a folder")
    text = "arrangement of the folder's files; auto recognises it"
    group.add_argument("--layout", choices=LAYOUTS, metavar="NAME", help=f"{text}: {', '.join(LAYOUTS)}")
    group.add_argument("--classes", metavar="FILE", help="YAML file of the classes")
    group.add_argument("--split", help="split to measure (default: the held-out one)")


def evaluation_settings(options: argparse.Namespace, config: SegmentationConfig) -> EvalConfig:
    """Return the run's ``eval`` section with the given options; ConfigError for values that do not fit."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    if given.get("multi_scale"):
        require("scales" not in given, "--multi-scale sets the scales; leave out --scales")
        given |= {"scales": PUBLISHED_SCALES, "flip": given.get("flip", True)}
    changes: dict[str, Any] = {name: value for name, value in given.items() if name in vars(config.eval)}
    for name in ("short_side", "size_divisor"):
        if changes.get(name) == NO_SIZE:
            changes[name] = None
    settings = replace(config.eval, **changes)
    validate_evaluation(settings)
    require(
        settings.mode == "slide" or not given.keys() & {"window", "stride"},
        "--window and --stride are for --mode slide; the run looks at whole pictures",
    )
    require(
        settings.short_side is not None or "long_side" not in given,
        "--long-side limits --short-side, but the run keeps the picture's size; give both",
    )
    return settings


def data_settings(options: argparse.Namespace, config: SegmentationConfig) -> DataConfig:
    """Return the run's ``data`` section with the given options, or a new one if they name another source."""
    data = config.data
    if options.data is not None:
        data = DataConfig(source=options.data, reduce_zero_label=data.reduce_zero_label, ignore_label=data.ignore_label)
    return replace(data, layout=options.layout or data.layout, classes=options.classes or data.classes)


def whole_numbers(text: str) -> list[int]:
    """Read a list of integers and ranges such as ``0-4,7``."""
    found: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not ends or int(ends[1]) > int(ends[2] or ends[1]):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers, such as 0-4 or 0,3")
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return found


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers, such as 0.5,1,1.5") from error


def _size(text: str) -> int:
    if text in ("none", "null"):
        return NO_SIZE
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of pixels nor none")
    return int(text)
