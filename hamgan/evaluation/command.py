"""Run `hamgan evaluate` and its commands `reference`, `sweep`, `compare` and `neighbours`."""

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hamgan.config import Config, DataConfig, EvalConfig
from hamgan.errors import ConfigError
from hamgan.evaluation.inputs.places import check_place_of_reference, check_place_of_samples
from hamgan.evaluation.options import FIELDS, parse
from hamgan.evaluation.protocol import Protocol, make_protocol
from hamgan.evaluation.report import TABLES, append_row, describe_numbers, print_remarks, print_row, save_table
from hamgan.files import JsonObject
from hamgan.sampling.outputs import check_file

if TYPE_CHECKING:
    from hamgan.evaluation.statistics import Resources


def main(arguments: Sequence[str], prog: str = "hamgan evaluate") -> None:
    """Run the given command; raises ConfigError for bad usage and unusable input."""
    options = parse(arguments, prog)
    if options.command != "reference" and options.checkpoint is not None:
        check_place_of_samples(options.checkpoint)
    reference = options.data if options.command == "reference" else options.reference
    if reference is not None:
        check_place_of_reference(reference)

    from hamgan.distributed.failure_watch import FailureWatch
    from hamgan.distributed.group import joined_processes

    run = {"reference": run_reference, "sweep": run_sweep, "neighbours": run_neighbours}
    with joined_processes(), FailureWatch():
        named = {name for name in ("metrics", "seed") if name in options}
        take_values_of_run(options)
        if options.command in (None, "compare"):
            (run_compare if options.command else run_evaluate)(options, named)
        else:
            run[options.command](options)


def take_values_of_run(options: argparse.Namespace) -> None:
    """Take options that are not given from the ``eval`` section of the measured run, and print them.

    A preset is a published protocol: with one, only reference and batch size are taken from the run.
    """
    from hamgan.distributed.group import Processes
    from hamgan.evaluation.inputs.samples import is_generator
    from hamgan.sampling.loading import read_config

    path = Path(getattr(options, "checkpoint", None) or "nothing")
    if not is_generator(path):
        options.batch_size = EvalConfig.batch_size if options.batch_size is None else options.batch_size
        return
    config = read_config(path)
    own = dataclasses.asdict(config.eval)
    of_training = options.command == "neighbours"  # the neighbours are training images
    data = None if _is_without_data(path, config) else config.data.source
    own["reference"] = data if of_training else own["reference"] or data
    names = {None: FIELDS, "sweep": set(FIELDS) - {"metrics"}, "neighbours": {"features"}, "compare": FIELDS}[
        options.command
    ]
    if getattr(options, "preset", None):
        names = set()
    if "ema" in options:  # other weights than those that the run's evaluations measure
        own["batch_norm"] = None
    given = {name for name, value in vars(options).items() if value is not None}
    taken = {
        name: value
        for name, value in own.items()
        if name in {*names, "reference", "batch_size"} and name not in given and value is not None
    }
    vars(options).update(taken)
    if Processes.current().is_main:
        words = [f"{name} {','.join(value) if isinstance(value, list) else value}" for name, value in taken.items()]
        print(f"as the run's eval section has it: {'; '.join(words)}", flush=True)


def _is_without_data(path: Path, config: Config) -> bool:
    """Return whether weights were converted without their data set, so that the default source does not apply."""
    from hamgan.checkpoint.tensors import read_metadata

    file = path / "generator.safetensors" if path.is_dir() else path
    converted = file.is_file() and "converted_from" in read_metadata(file)
    return converted and config.data.source == DataConfig.source


def _make_protocol(options: argparse.Namespace) -> Protocol:
    return make_protocol(options.preset, **{name: value for name, value in vars(options).items() if name in FIELDS})


def _make_resources(options: argparse.Namespace, protocol: Protocol) -> "Resources":
    from hamgan.evaluation.evaluator import load_protocol_extractor
    from hamgan.evaluation.statistics import Resources

    extractor = load_protocol_extractor(protocol, options.inception_weights, options.device, options.compile)
    return Resources(extractor, options.batch_size, not options.quiet, options.cache, options.memory_gib)


def run_evaluate(options: argparse.Namespace, named: Collection[str]) -> None:
    """Evaluate, print the numbers and append the row to results.jsonl.

    ``named`` says which of ``metrics`` and ``seed`` the command line gives. Without ``metrics``, a metric of another
    family is added to FID if its weights are on this machine; without ``seed``, a checkpoint that was chosen by FID is
    measured with other seeds.
    """
    from hamgan.distributed.group import Processes
    from hamgan.evaluation.contamination import avoid_chosen_samples
    from hamgan.evaluation.evaluator import evaluate_parts
    from hamgan.evaluation.inputs.samples import is_generator, load_samples
    from hamgan.sampling.loading import find_run

    if options.checkpoint is None:
        raise ConfigError("--checkpoint is missing: a run, a checkpoint, a generator, an image folder or an .npz")
    protocol, write_line = _make_protocol(options), print if Processes.current().is_main else _ignore_line
    confusion = _check_outputs(options, protocol)
    protocol, resources = _load_extractors(options, protocol, named, write_line)
    first = next(iter(resources.values()))
    samples = load_samples(options.checkpoint, protocol, first.extractor.device)
    if "seed" not in named:
        protocol = avoid_chosen_samples(protocol, [samples], write_line)
    parts = [(part, resources[part.features]) for part in protocol.by_extractor()]
    row = evaluate_parts(samples, options.reference, parts, preset=options.preset, strict=options.strict)
    if not Processes.current().is_main:
        return
    print_row(row)
    _write_class_files(row, options.class_table, confusion)
    results = options.results
    if results is None and Path(options.checkpoint).is_dir() and is_generator(Path(options.checkpoint)):
        results = find_run(Path(options.checkpoint)) / "results.jsonl"
    if results:
        print(f"row appended to {append_row(row, results)}")


def _load_extractors(
    options: argparse.Namespace, protocol: Protocol, named: Collection[str], write_line: Callable[[str], object]
) -> "tuple[Protocol, dict[str, Resources]]":
    """Load every extractor, so that missing weights are reported before anything is measured.

    Returns the protocol, perhaps with a metric added to FID (see `run_evaluate`), and resources by extractor.
    """
    from hamgan.evaluation.contamination import add_metric_beside_fid

    if "metrics" not in named:
        protocol = add_metric_beside_fid(protocol, options.reference, write_line)
    return protocol, {part.features: _make_resources(options, part) for part in protocol.by_extractor()}


def _ignore_line(_line: str) -> None:
    """Ignore a line, on processes that print nothing."""


def _check_outputs(options: argparse.Namespace, protocol: Protocol) -> Path | None:
    """Raise ConfigError for output files that could not be written; returns the file of the confusion matrix."""
    for option, file in (("--results", options.results), ("--class-table", options.class_table)):
        if file:
            check_file(file, option)
    for option, file in (("--class-table", options.class_table), ("--confusion", options.confusion)):
        if file and "per_class" not in protocol.metrics:
            raise ConfigError(f"{option} needs per_class among --metrics; they are {', '.join(protocol.metrics)}")
    return check_file(options.confusion, "--confusion", (".png",)) if options.confusion else None


def _write_class_files(row: JsonObject, table: str | None, confusion: Path | None) -> None:
    tables = {name: value for key, value in row.items() for name in TABLES if key.startswith(name)}
    if table:
        print(f"all classes: {save_table(tables['class_table'], table)}")
    if confusion:
        from hamgan.evaluation.studies.confusions import save_confusions

        names = [entry["class"] for entry in tables["class_table"]]
        paths = save_confusions(tables["class_confusions"], names, confusion, row["protocol"])
        print(f"confusions: picture {paths[0]}, table {paths[1]}")


def run_reference(options: argparse.Namespace) -> None:
    """Compute the statistics of a reference and write them."""
    from hamgan.data import default_resolution
    from hamgan.distributed.group import Processes
    from hamgan.evaluation.checks import splits_of_score
    from hamgan.evaluation.inputs.references import open_reference_images
    from hamgan.evaluation.reference import save_reference

    output, protocol = check_file(options.output, endings=(".safetensors",)), _make_protocol(options)
    resolution = options.resolution or default_resolution(options.data)
    images = open_reference_images(options.data, protocol.split, resolution)
    resources = _make_resources(options, protocol)
    splits = splits_of_score(protocol, len(images), resources.extractor)
    statistics = resources.measure(images, "reference", is_splits=splits, keep_features=options.keep_features)
    if Processes.current().is_main:
        save_reference(statistics, output)
        print(f"{output}: {statistics.count:,} images, hash {statistics.description['hash']}")
        if statistics.inception_score:
            mean, std = statistics.inception_score
            print(f"Inception Score of the reference ({statistics.description['extractor']}): {mean:.5g} ± {std:.2g}")


def run_sweep(options: argparse.Namespace) -> None:
    """Evaluate at several truncations, draw the curve and write the table."""
    from hamgan.distributed.group import Processes
    from hamgan.evaluation.studies.truncation_sweep import save_sweep, sweep_protocol, truncation_sweep

    output, protocol = check_file(options.output, endings=(".png",)), _make_protocol(options)
    try:
        truncations = [float(value) for value in options.truncations]
    except ValueError as error:
        raise ConfigError(f"--truncations: {error}; give numbers such as 0.5,0.7,1") from error
    resources = _make_resources(options, protocol)
    rows = truncation_sweep(options.checkpoint, options.reference, protocol, resources, truncations)
    if Processes.current().is_main:
        picture, table = save_sweep(rows, output)
        for row in rows:
            print(f"truncation {row['truncation']:g}: {'; '.join(describe_numbers(row))}")
        print(f"protocol: {sweep_protocol(rows)}")
        print(f"curve {picture}, table {table}")


def run_compare(options: argparse.Namespace, named: Collection[str]) -> None:
    """Compare A with B: print a line per metric and write picture and table; see `compare`."""
    from hamgan.distributed.group import Processes
    from hamgan.evaluation.contamination import avoid_chosen_samples, families_of, notes_on_single_family
    from hamgan.evaluation.studies.comparison import compare, describe_difference, equal_sides, save_comparison

    output = check_file(options.output, endings=(".png",))
    check_place_of_samples(options.other)
    write_line = print if Processes.current().is_main else _ignore_line
    protocol, resources = _load_extractors(options, _make_protocol(options), named, write_line)
    first, places = next(iter(resources.values())), (options.checkpoint, options.other)
    sides, protocol = equal_sides(places, protocol, first.extractor.device)
    if "seed" not in named:
        protocol = avoid_chosen_samples(protocol, sides, write_line)
    parts = [(part, resources[part.features]) for part in protocol.by_extractor()]
    differences, rows = compare(sides, options.reference, parts)
    if Processes.current().is_main:
        for one in differences:
            print(describe_difference(one))
        for side, row in zip(itertools.cycle("AB"), rows, strict=False):
            print(f"protocol of {side}: {row['protocol']}")
        print_remarks([*rows, {"notes": notes_on_single_family(families_of(protocol), parts[0][0])}])
        print("this tells these two apart, not two methods: runs of one method with other seeds differ as well")
        picture, table = save_comparison(differences, rows, output)
        print(f"picture {picture}, table {table}")


def run_neighbours(options: argparse.Namespace) -> None:
    """Draw the sheet of nearest real images and print the distances."""
    from hamgan.distributed.group import Processes
    from hamgan.evaluation.inputs.samples import load_samples, make_images
    from hamgan.evaluation.studies.neighbours import neighbour_sheet

    output, protocol = check_file(options.output, endings=(".png",)), _make_protocol(options)
    if options.reference is None:
        raise ConfigError("neighbours needs --reference, the training images")
    resources = _make_resources(options, protocol)
    loaded = load_samples(options.checkpoint, protocol, resources.extractor.device)
    row = neighbour_sheet(
        make_images(loaded, protocol),
        options.reference,
        resources,
        output,
        split=protocol.split,
        rows=options.rows,
        neighbours=options.columns,
        max_count=protocol.reference_samples,
    )
    if Processes.current().is_main:
        near, real = row["median_distance"], row["median_distance_real"]
        print(f"median distance to the nearest of {row['count']:,} real images: {near:.4g} (smallest")
        print(f"  {row['smallest_distance']:.4g}); of a real image to the nearest other one: {real:.4g}")
        print(f"sheet {output}")
