"""The command line of `hamgan evaluate`: `evaluate` (the default), `reference`, `sweep` and `neighbours`."""

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from hamgan.config import METRICS
from hamgan.distributed.group import Processes, start_processes
from hamgan.errors import ConfigError, did_you_mean
from hamgan.evaluation.evaluator import evaluate
from hamgan.evaluation.features.extractor import FeatureExtractor, load_extractor
from hamgan.evaluation.inputs.samples import images_of, is_generator, load_samples
from hamgan.evaluation.protocol import PRESETS, Protocol, make_protocol
from hamgan.evaluation.reference import open_reference_images, save_reference
from hamgan.evaluation.report import TABLES, append_row, describe_numbers, print_row, save_table
from hamgan.evaluation.statistics import measure
from hamgan.evaluation.studies.classes import save_confusions
from hamgan.evaluation.studies.neighbours import neighbour_sheet
from hamgan.evaluation.studies.truncation_sweep import TRUNCATIONS, save_sweep, sweep_protocol, truncation_sweep
from hamgan.sampling.sheets import check_parents


def main(arguments: Sequence[str], prog: str = "hamgan evaluate") -> None:
    """Run the command that the arguments name; raises ConfigError (a sentence) for bad usage and unusable input."""
    given = list(arguments)
    commands = {
        "evaluate": run_evaluate,
        "reference": run_reference,
        "sweep": run_sweep,
        "neighbours": run_neighbours,
    }
    command = given.pop(0) if given and given[0] in commands else "evaluate"
    if given and not given[0].startswith("-"):
        known = list(commands)
        raise ConfigError(f"unknown command {given[0]!r}; there are {', '.join(known)}{did_you_mean(given[0], known)}")
    start_processes()
    commands[command](given)


def _parser(description: str, skip: Set[str] = frozenset(), samples: bool = True) -> ArgumentParser:
    """The options that commands share; `skip` are fields of Protocol that mean nothing to this one."""
    parser = ArgumentParser(prog="scripts/evaluate.py", description=description, exit_on_error=False)
    add = parser.add_argument
    if samples:
        what = "run, checkpoint, generator, image folder or .npz"
        add("--checkpoint", "--samples", type=str, required=True, help=what)
        add("--reference", type=str, help="prepared store, photos, image folder, reference file or .npz")
    add("--inception-weights", type=str, help="weights file; else $HAMGAN_INCEPTION_WEIGHTS, else download")
    add("--batch-size", type=int, default=64, help="images per process and forward")
    add("--device", type=str, help="cpu, cuda, ...; the GPU where there is one")
    add("--compiled", action="store_true", help="torch.compile the extractor (from some 5,000 images on)")
    add("--quiet", action="store_true", help="no progress bar")
    parser.add_class_arguments(Protocol, as_group=False, skip={"metrics", *skip})
    return parser


def evaluate_parser() -> ArgumentParser:
    """The options of an evaluation."""
    parser = _parser("Measure samples against a reference; run it under `accelerate launch` for several GPUs.")
    parser.add_argument("--metrics", type=str, default="fid,is", help=f"comma-separated: {', '.join(METRICS)}")
    parser.add_argument("--preset", type=str, help=f"{', '.join(PRESETS)} or a YAML file of these options")
    parser.add_argument("--strict", action="store_true", help="warnings are errors")
    parser.add_argument("--cache", type=str, help="folder that keeps the features of named references")
    parser.add_argument("--memory-gib", type=float, default=8.0, help="what gathered features may take per process")
    parser.add_argument("--results", type=str, help="JSON-lines file for the row; a run has its results.jsonl")
    parser.add_argument("--class-table", type=str, help="CSV file for the figures of all classes (per_class)")
    what = "picture of which classes are taken for which (per_class), .png; the table stands beside it"
    parser.add_argument("--confusion", type=str, help=what)
    return parser


def reference_parser() -> ArgumentParser:
    """The options of `reference`."""
    description = "Compute the statistics of a reference once and keep them in a file."
    parser = _parser(description, OF_SAMPLES, samples=False)
    parser.add_argument("--data", type=str, required=True, help="prepared store, photos, cifar10 or an image folder")
    parser.add_argument("--output", type=str, required=True, help="file to write, .safetensors")
    parser.add_argument("--resolution", type=int, default=128, help="pixels; the samples'")
    parser.add_argument("--keep-features", action="store_true", help="for KID, precision and recall, class distances")
    return parser


def sweep_parser() -> ArgumentParser:
    """The options of `sweep`."""
    parser = _parser("FID and IS over truncation, as a curve (PNG) and a table (CSV).", {"truncation"})
    values = ",".join(f"{value:g}" for value in TRUNCATIONS)
    parser.add_argument("--truncations", type=str, default=values, help="comma-separated")
    parser.add_argument("--output", type=str, required=True, help="picture to write, .png; the table stands beside it")
    parser.add_argument("--cache", type=str, help="folder that keeps the features of named references")
    return parser


def neighbours_parser() -> ArgumentParser:
    """The options of `neighbours`."""
    parser = _parser("The nearest real images of generated ones, as a sheet.", {"repeats", "is_splits"})
    parser.set_defaults(split="train", num_samples=1000)
    parser.add_argument("--output", type=str, required=True, help="picture to write, .png")
    parser.add_argument("--rows", type=int, default=12, help="samples on the sheet, those with the nearest images")
    parser.add_argument("--columns", type=int, default=6, help="nearest images of each")
    return parser


OF_SAMPLES = {"num_samples", "seed", "repeats", "truncation", "labels", "batch_norm", "ema"}
OF_SAMPLES |= {"kid_subsets", "kid_subset_size", "neighbours", "reference_samples"}


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
    if results:
        _check_file(results, "--results")
    metrics = [name.strip() for name in options.pop("metrics").split(",") if name.strip()]
    table, confusion = _class_files(options, metrics)
    row = evaluate(samples, options.pop("reference"), metrics, progress=not quiet, **options)
    if not Processes.current().is_main:
        return
    print_row(row)
    _write_class_files(row, table, confusion)
    if results is None and Path(samples).is_dir() and is_generator(Path(samples)):
        results = Path(samples) / "results.jsonl"
    if results:
        print(f"row appended to {append_row(row, results)}")


def _class_files(options: dict[str, Any], metrics: Sequence[str]) -> tuple[str | None, Path | None]:
    """--class-table and --confusion, which say what is wrong with them before anything is measured."""
    table, confusion = options.pop("class_table"), options.pop("confusion")
    if table:
        _check_file(table, "--class-table")
    for name, given in (("--class-table", table), ("--confusion", confusion)):
        if given and "per_class" not in metrics:
            raise ConfigError(f"{name} needs per_class among --metrics; they are {', '.join(metrics)}")
    return table, _ending(confusion, ".png", "--confusion") if confusion else None


def _write_class_files(row: dict[str, Any], table: str | None, confusion: Path | None) -> None:
    tables = {name: value for key, value in row.items() for name in TABLES if key.startswith(name)}
    if table:
        print(f"all classes: {save_table(tables['class_table'], table)}")
    if confusion:
        names = [entry["class"] for entry in tables["class_table"]]
        paths = save_confusions(tables["class_confusions"], names, confusion, row["protocol"])
        print(f"confusions: picture {paths[0]}, table {paths[1]}")


def run_reference(arguments: Sequence[str]) -> None:
    """Compute the statistics of a reference and write them."""
    options = _parse(reference_parser(), arguments)
    output = _ending(options["output"], ".safetensors")
    images = open_reference_images(options["data"], options["split"], options["resolution"])
    statistics = measure(
        images,
        _extractor(options),
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


def run_sweep(arguments: Sequence[str]) -> None:
    """Evaluate at several truncations, draw the curve and write the table."""
    options = _parse(sweep_parser(), arguments)
    output = _ending(options.pop("output"), ".png")
    try:
        truncations = [float(value) for value in options.pop("truncations").split(",")]
    except ValueError as error:
        raise ConfigError(f"--truncations: {error}; give numbers such as 0.5,0.7,1") from error
    extractor = _extractor(options)
    for name in ("inception_weights", "device", "compiled"):
        options.pop(name)
    samples, reference, quiet = options.pop("checkpoint"), options.pop("reference"), options.pop("quiet")
    rows = truncation_sweep(samples, reference, extractor, truncations, progress=not quiet, **options)
    paths = save_sweep(rows, output)
    if Processes.current().is_main:
        for row in rows:
            print(f"truncation {row['truncation']:g}: {'; '.join(describe_numbers(row))}")
        print(f"protocol: {sweep_protocol(rows)}")
        print(f"curve {paths[0]}, table {paths[1]}")


def run_neighbours(arguments: Sequence[str]) -> None:
    """Draw the sheet of nearest real images and print the distances."""
    options = _parse(neighbours_parser(), arguments)
    output = _ending(options["output"], ".png")
    if options["reference"] is None:
        raise ConfigError("neighbours needs --reference, the training images")
    protocol = make_protocol(
        **{name: options[name] for name in ("num_samples", "seed", "truncation", "labels", "batch_norm", "ema")}
    )
    extractor = _extractor(options)
    loaded = load_samples(options["checkpoint"], protocol, extractor.device, options["batch_size"])
    row = neighbour_sheet(
        images_of(loaded, protocol, protocol.seed),
        options["reference"],
        extractor,
        output,
        split=options["split"],
        rows=options["rows"],
        neighbours=options["columns"],
        max_count=options["reference_samples"],
        batch_size=options["batch_size"],
        progress=not options["quiet"],
    )
    if Processes.current().is_main:
        near, real = row["median_distance"], row["median_distance_real"]
        print(f"median distance to the nearest of {row['count']:,} real images: {near:.4g} (smallest")
        print(f"  {row['smallest_distance']:.4g}); of a real image to the nearest other one: {real:.4g}")
        print(f"sheet {output}")


def _extractor(options: dict[str, Any]) -> FeatureExtractor:
    return load_extractor(
        options["features"],
        weights=options["inception_weights"],
        weights_sha256=options["inception_sha256"],
        resizer=options["resizer"],
        precision=options["precision"],
        device=options["device"],
        compiled=options["compiled"],
    )


def _ending(path: str, suffix: str, option: str = "--output") -> Path:
    if not path.endswith(suffix):
        raise ConfigError(f"{option} {path} must end in {suffix}")
    _check_file(path, option)
    return Path(path)


def _check_file(path: str, option: str) -> None:
    """Raise ConfigError for an output that cannot be a file, before anything is measured."""
    check_parents(Path(path), option)
    if Path(path).is_dir():
        raise ConfigError(f"{option} {path} is a folder; name a file")


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
                raise ConfigError(f"unknown option {name}{did_you_mean(name, known)}")
            argument = match + equals + value
        fixed.append(argument)
    try:
        parsed: Namespace = parser.parse_args(fixed)
    except Exception as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return dict(vars(parser.instantiate_classes(parsed)))
