"""The command line of scripts/evaluate.py: `evaluate` (the default) and `reference`."""

import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from hamgan.config import ConfigError
from hamgan.evaluation.distributed import Processes
from hamgan.evaluation.evaluator import evaluate
from hamgan.evaluation.features import load_extractor
from hamgan.evaluation.protocol import METRICS, PRESETS, Protocol, make_protocol
from hamgan.evaluation.reference import open_reference_images, save_reference
from hamgan.evaluation.report import append_row, print_row
from hamgan.evaluation.samples import is_generator
from hamgan.evaluation.statistics import measure

COMMANDS = ("evaluate", "reference")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name; raises ConfigError (a sentence) for bad usage and unusable input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given.pop(0) if given and given[0] in COMMANDS else "evaluate"
    if given and not given[0].startswith("-"):
        raise ConfigError(
            f"unknown command {given[0]!r}; there are {', '.join(COMMANDS)}{_nearest(given[0], COMMANDS)}"
        )
    _start_processes()
    {"evaluate": run_evaluate, "reference": run_reference}[command](given)


def _start_processes() -> None:
    """Join the other processes when `accelerate launch` or `torchrun` started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        PartialState()


def _parser(description: str) -> ArgumentParser:
    parser = ArgumentParser(prog="scripts/evaluate.py", description=description, exit_on_error=False)
    parser.add_argument(
        "--inception-weights", type=str, help="weights file; else $HAMGAN_INCEPTION_WEIGHTS, else download"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="images per process and forward")
    parser.add_argument("--device", type=str, help="cpu, cuda, ...; the GPU where there is one")
    parser.add_argument(
        "--compiled", action="store_true", help="torch.compile the extractor (from some 5,000 images on)"
    )
    return parser


def evaluate_parser() -> ArgumentParser:
    """The options of an evaluation."""
    parser = _parser("Measure samples against a reference; run it under `accelerate launch` for several GPUs.")
    parser.add_argument(
        "--checkpoint", "--samples", type=str, required=True, help="run, checkpoint, generator, image folder or .npz"
    )
    parser.add_argument("--reference", type=str, help="prepared store, photos, image folder, reference file or .npz")
    parser.add_argument("--metrics", type=str, default="fid,is", help=f"comma-separated: {', '.join(METRICS)}")
    parser.add_argument("--preset", type=str, help=f"{', '.join(PRESETS)} or a YAML file of these options")
    parser.add_class_arguments(Protocol, as_group=False, skip={"metrics"})
    parser.add_argument("--strict", action="store_true", help="warnings are errors")
    parser.add_argument("--cache", type=str, help="folder that keeps the features of named references")
    parser.add_argument("--memory-gib", type=float, default=8.0, help="what gathered features may take per process")
    parser.add_argument("--results", type=str, help="JSON-lines file for the row; a run has its results.jsonl")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def reference_parser() -> ArgumentParser:
    """The options of `reference`."""
    parser = _parser("Compute the statistics of a reference once and keep them in a file.")
    parser.add_argument("--data", type=str, required=True, help="prepared store, photos, cifar10 or an image folder")
    parser.add_argument("--output", type=str, required=True, help="file to write, .safetensors")
    parser.add_argument("--resolution", type=int, default=128, help="pixels; a store and a folder have their own")
    parser.add_argument("--keep-features", action="store_true", help="for KID, precision and recall, class distances")
    parser.add_class_arguments(Protocol, as_group=False, skip=NOT_OF_REFERENCES)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


NOT_OF_REFERENCES = {
    "metrics",
    "num_samples",
    "seed",
    "truncation",
    "labels",
    "batch_norm",
    "ema",
    "kid_subsets",
    "kid_subset_size",
    "neighbours",
}


def run_evaluate(arguments: Sequence[str]) -> None:
    """Evaluate, print the numbers and append the row to results.jsonl."""
    parser = evaluate_parser()
    preset = _value_of("--preset", arguments)
    if preset:
        values = vars(make_protocol(preset))
        parser.set_defaults(**{name: value for name, value in values.items() if name != "metrics"})
        parser.set_defaults(metrics=",".join(values["metrics"]))
    options = _parse(parser, arguments)
    samples, results, quiet = options.pop("checkpoint"), options.pop("results"), options.pop("quiet")
    options.pop("preset")
    metrics = [name.strip() for name in options.pop("metrics").split(",") if name.strip()]
    row = evaluate(samples, options.pop("reference"), metrics, progress=not quiet, **options)
    row["preset"] = str(preset) if preset else None
    if Processes.current().is_main:
        print_row(row)
        if results is None and Path(samples).is_dir() and is_generator(Path(samples)):
            results = Path(samples) / "results.jsonl"
        if results:
            print(f"row appended to {append_row(row, results)}")


def run_reference(arguments: Sequence[str]) -> None:
    """Compute the statistics of a reference and write them."""
    options = _parse(reference_parser(), arguments)
    output = Path(options["output"])
    if output.suffix != ".safetensors":
        raise ConfigError(f"--output {output} must end in .safetensors")
    images = open_reference_images(options["data"], options["split"], options["resolution"])
    extractor = load_extractor(
        options["features"],
        weights=options["inception_weights"],
        weights_sha256=options["inception_sha256"],
        resizer=options["resizer"],
        precision=options["precision"],
        device=options["device"],
        compiled=options["compiled"],
    )
    statistics = measure(
        images,
        extractor,
        batch_size=options["batch_size"],
        is_splits=min(options["is_splits"], len(images)),
        keep_features=options["keep_features"],
        progress=not options["quiet"],
        title="reference",
    )
    if Processes.current().is_main:
        save_reference(statistics, output)
        mean, std = statistics.inception_score or (0.0, 0.0)
        print(f"{output}: {statistics.count:,} images, hash {statistics.description['hash']}")
        print(f"Inception Score of the reference ({statistics.description['extractor']}): {mean:.5g} ± {std:.2g}")


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option:
            return value if equals else (arguments[position + 1] if position + 1 < len(arguments) else None)
    return None


def _parse(parser: ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """Options as a dict; dashes and underscores are the same. ConfigError names an unknown option's nearest."""
    known = [name for action in parser._actions for name in action.option_strings]
    fixed = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--") and name not in known:
            other = f"--{name[2:].replace('-', '_')}", f"--{name[2:].replace('_', '-')}"
            match = next((item for item in other if item in known), None)
            if match is None:
                raise ConfigError(f"unknown option {name}{_nearest(name, known)}")
            argument = match + equals + value
        fixed.append(argument)
    try:
        parsed: Namespace = parser.parse_args(fixed)
    except Exception as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return dict(vars(parser.instantiate_classes(parsed)))


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
