"""Define the options of `hamgan evaluate` and of its commands `reference`, `sweep`, `compare` and `neighbours`."""

import argparse
import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

from docstring_parser import parse_from_object

from hamgan.config import METRICS
from hamgan.errors import ConfigError, did_you_mean, refuse_renamed
from hamgan.evaluation.cache import cache_folder
from hamgan.evaluation.protocol import CHOICES, PRESETS, TRUNCATIONS, Protocol

FIELDS = [field.name for field in dataclasses.fields(Protocol)]
OF_EXTRACTOR = {"features", "resizer", "inception_sha256", "tf32"}
OF_SAMPLES = {"num_samples", "seed", "labels", "batch_norm", "ema"}
RENAMED = {"--samples": "--checkpoint", "--ema": "--no-ema", "--compiled": "--compile"}


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    """Parse the arguments; raises ConfigError (a sentence) for any that cannot be used.

    The options have the name of the command, None for an evaluation, as ``command``.
    """
    parser, commands = evaluate_parser(prog)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in commands:
        hint = did_you_mean(arguments[0], commands)
        raise ConfigError(f"unknown command {arguments[0]!r}; there are {', '.join(commands)}{hint}")
    _refuse_unknown(arguments, commands.get(arguments[0], parser) if arguments else parser)
    return parser.parse_args(arguments)


class Parser(argparse.ArgumentParser):
    """Raise ConfigError for bad usage instead of printing the usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)

    @property
    def options(self) -> list[str]:
        """Return all options, as ``--num-samples``."""
        return [name for name in self._option_string_actions if name.startswith("--")]


def _refuse_unknown(arguments: Sequence[str], parser: Parser) -> None:
    """Raise ConfigError for an option of an earlier version or an unknown one, with the nearest name."""
    known = parser.options
    underscores = {f"--{name[2:].replace('-', '_')}": name for name in known if "-" in name[2:]}
    refuse_renamed(arguments, RENAMED | underscores)
    for name in (argument.partition("=")[0] for argument in arguments if argument.startswith("--")):
        if name == "--precision":
            raise ConfigError("--precision was removed: features are computed in float32, or with --tf32 in TF32")
        if name not in known:
            raise ConfigError(f"unknown option {name}{did_you_mean(name, known)}")


def evaluate_parser(prog: str = "hamgan evaluate") -> tuple[Parser, dict[str, Parser]]:
    """Return the parser of an evaluation, and the parsers of its subcommands by name."""
    description = "Measure samples against a reference; for several GPUs run it with `accelerate launch`."
    parser = Parser(prog=prog, description=description, allow_abbrev=False)
    _add_inputs(parser, required=False)  # argparse would require them in the subcommands too
    _add_protocol(parser, set(FIELDS) - {"metrics"})
    add = parser.add_argument
    _add_metrics(parser)
    add("--preset", help=f"{', '.join(PRESETS)} or a YAML file of these options")
    add("--strict", action="store_true", help="turn warnings into errors")
    _add_cache(parser)
    add("--results", metavar="FILE", help="JSON-lines file to append the row to (default: the run's results.jsonl)")
    add("--class-table", metavar="FILE", help="CSV file for the figures of every class (needs per_class)")
    confusion = "confusion matrix (needs per_class), .png; also writes its table as .csv"
    add("--confusion", metavar="FILE", help=confusion)
    title = "other commands, each with its own --help"
    commands = parser.add_subparsers(title=title, dest="command", metavar="", parser_class=Parser)
    parsers: dict[str, Parser] = {}
    for name, (help_text, add_options) in COMMANDS.items():
        parsers[name] = commands.add_parser(
            name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.", allow_abbrev=False
        )
        add_options(parsers[name])
    return parser, parsers


def _add_reference_options(parser: Parser) -> None:
    _add_resources(parser)
    _add_protocol(parser, OF_EXTRACTOR | {"split", "is_splits"})
    add = parser.add_argument
    add("--data", required=True, help="data set such as photos or cifar10, prepared store or folder of images")
    add("--output", required=True, metavar="FILE", help="file to write, .safetensors")
    add(
        "--resolution", type=int, metavar="PIXELS", help="resolution of the samples (default: the data's own, else 128)"
    )
    add(
        "--keep-features",
        action="store_true",
        help="store all features too, for KID, precision and recall, and metrics by class",
    )


def _add_sweep_options(parser: Parser) -> None:
    _add_inputs(parser)
    _add_protocol(parser, OF_EXTRACTOR | OF_SAMPLES | {"split", "reference_samples", "repeats", "is_splits"})
    values = ",".join(f"{value:g}" for value in TRUNCATIONS)
    add = parser.add_argument
    add("--truncations", type=_split, default=values, help=f"truncations, comma-separated (default: {values})")
    add("--output", required=True, metavar="FILE", help="picture to write, .png; also writes its table as .csv")
    _add_cache(parser)


def _add_compare_options(parser: Parser) -> None:
    what = "run, checkpoint, generator file, folder of images or .npz"
    parser.add_argument("checkpoint", metavar="A", help=what)
    parser.add_argument("other", metavar="B", help="what to compare with A, of the same kinds")
    parser.add_argument("--reference", help="data set, prepared store, folder of images, file of statistics or .npz")
    _add_resources(parser)
    fields = OF_EXTRACTOR | OF_SAMPLES | {"split", "reference_samples", "truncation", "repeats", "resamples"}
    _add_protocol(parser, fields, repeats=3, resamples=20)
    _add_metrics(parser)
    add = parser.add_argument
    add("--output", required=True, metavar="FILE", help="picture to write, .png; also writes its table as .csv")
    _add_cache(parser)


def _add_neighbours_options(parser: Parser) -> None:
    _add_inputs(parser)
    fields = OF_EXTRACTOR | OF_SAMPLES | {"split", "reference_samples", "truncation"}
    _add_protocol(parser, fields, split="train", num_samples=1000)
    add = parser.add_argument
    add("--output", required=True, metavar="FILE", help="picture to write, .png")
    add("--rows", type=int, default=12, help="samples on the sheet: those nearest to a real image (default: 12)")
    add("--columns", type=int, default=6, help="nearest real images per sample (default: 6)")
    _add_cache(parser)


COMMANDS = {
    "reference": ("compute the statistics of a reference once and write them to a file", _add_reference_options),
    "sweep": ("draw FID and IS over truncation, as a curve (PNG) and a table (CSV)", _add_sweep_options),
    "compare": ("compare runs, checkpoints or sets of images A and B, with confidence intervals", _add_compare_options),
    "neighbours": ("draw a sheet of generated images with their nearest real ones", _add_neighbours_options),
}


def _add_inputs(parser: Parser, required: bool = True) -> None:
    what = "run, checkpoint, generator file, folder of images or .npz"
    parser.add_argument("--checkpoint", required=required, metavar="SAMPLES", help=what)
    parser.add_argument("--reference", help="data set, prepared store, folder of images, file of statistics or .npz")
    _add_resources(parser)


def _add_resources(parser: Parser) -> None:
    add = parser.add_argument
    weights = "file of Inception weights (default: $HAMGAN_INCEPTION_WEIGHTS, else downloaded once)"
    add("--inception-weights", metavar="FILE", help=weights)
    add("--batch-size", type=int, help="images per process and forward (default: the run's, else 64)")
    add("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    add(
        "--compile",
        action="store_true",
        help="compile the extractor with torch.compile, which pays from some 5,000 images on",
    )
    add("--quiet", action="store_true", help="show no progress bar")


def _add_cache(parser: Parser) -> None:
    help_text = "folder for cached features of references (default: $XDG_CACHE_HOME/hamgan/features, else ~/.cache/...)"
    parser.add_argument("--cache", type=Path, default=cache_folder(), metavar="FOLDER", help=help_text)
    memory = "limit of memory for features, per process (default: 8)"
    parser.add_argument("--memory-gib", type=float, default=8.0, help=memory)
    help_text = "do not read or write cached features of references"
    parser.add_argument("--no-cache", dest="cache", action="store_const", const=None, help=help_text)


def _add_metrics(parser: Parser) -> None:
    metrics = f"comma-separated (default: fid,is): {', '.join(METRICS)}"
    parser.add_argument("--metrics", type=_split, default=argparse.SUPPRESS, metavar="NAMES", help=metrics)


def _add_protocol(parser: Parser, names: Collection[str], **defaults: str | int) -> None:
    """Add options for the fields ``names`` of Protocol, with their docstrings as help.

    Options that are not given are missing from the parsed ones, so that defaults do not hide a preset's values.
    """
    texts = {item.arg_name: item.description or "" for item in parse_from_object(Protocol).params}
    for field in (field for field in dataclasses.fields(Protocol) if field.name in names):
        name, text = field.name.replace("_", "-"), " ".join(texts[field.name].split())
        if field.name == "ema":
            help_text = "measure the trained generator itself, not its average"
            parser.add_argument("--no-ema", dest="ema", action="store_false", default=argparse.SUPPRESS, help=help_text)
            continue
        if field.name == "tf32":
            parser.add_argument("--tf32", action="store_true", default=argparse.SUPPRESS, help=text)
            continue
        default = defaults.get(field.name, field.default)
        # `Protocol.validate` checks the choices and names the nearest. Only reference_samples is a number or None.
        kind = str if field.name in CHOICES else int if default is None else type(default)
        parser.add_argument(
            f"--{name}",
            type=kind,
            default=defaults.get(field.name, argparse.SUPPRESS),
            metavar="|".join(CHOICES[field.name]) if field.name in CHOICES else kind.__name__.upper(),
            help=text if default is None else f"{text.rstrip('.')} (default: {default})",
        )


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
