"""Run `hamgan segment` and its commands."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hamgan.config import flat_config, preset_names
from hamgan.config.help import asked_topic, help_text
from hamgan.config.presets import check_run_to_resume
from hamgan.data.finding.locations import check_location
from hamgan.errors import ConfigError, DataError, did_you_mean
from hamgan.sampling.outputs import check_file
from hamgan.sampling.places import check_place as check_checkpoint
from hamgan.segmentation.config import DATA_SETS, SEGMENTATION
from hamgan.segmentation.options import (
    Parser,
    add_data,
    add_inference,
    data_settings,
    evaluation_settings,
    whole_numbers,
)
from hamgan.segmentation.weights_command import run_convert, run_cost, run_export

FIRST = (
    "name",
    "data.source",
    "data.layout",
    "encoder.weights",
    "train.total_kimg",
    "train.batch_size",
    "train.lr",
    "augment.crop",
    "head.context",
    "eval.every_kimg",
    "log.tracker",
)
"""Keys that people change first."""
CHECKPOINT = "run folder, segmenter.safetensors or owner/name on a hub"

Arguments = Sequence[str]


def main(arguments: Arguments, prog: str = "hamgan segment") -> None:
    """Run the given command; raises ConfigError for bad usage and unusable input."""
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:10}{text}" for name, (_, text) in COMMANDS.items())
        print(f"usage: {prog} COMMAND [--help]\n\nTrain, evaluate and use segmenters: HamNet and Light-Ham.\n\n{lines}")
        return
    name, *rest = arguments
    if name not in COMMANDS:
        raise ConfigError(f"unknown command `{name}`; there are {', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}")
    COMMANDS[name][0](rest, f"{prog} {name}")


def run_train(arguments: Arguments, prog: str) -> None:
    """Train a configuration; the same command again resumes."""
    parser = SEGMENTATION.parser(prog=prog, description="Train a segmenter; the same command again resumes.")
    text = "resume although these keys (or sections) of the configuration have changed"
    parser.add_argument("--override-resume", action="append", default=[], metavar="KEY,...", help=text)
    topic = asked_topic(list(arguments))
    if topic is not None:
        print(help_text(parser, topic, SEGMENTATION, FIRST))
        return
    config, options = SEGMENTATION.parse(arguments, parser)
    _ask_for_configuration(arguments, prog)
    check_run_to_resume(arguments, config.folder)
    check_location(config.data.source, DATA_SETS)
    from hamgan.distributed.group import joined_processes, rank
    from hamgan.segmentation.training import train

    with joined_processes():
        train(config, [key for given in options.override_resume for key in given.split(",")])
        if rank() == 0:
            folder = shlex.quote(str(config.folder))
            print(f"trained; go on with {prog.removesuffix('train')}evaluate --checkpoint {folder}, or predict")


def run_evaluate(arguments: Arguments, prog: str) -> None:
    """Measure a segmenter, print the scores and append them to results.jsonl."""
    parser = Parser(prog=prog, description="Measure mIoU, mAcc and aAcc, with their protocol.")
    parser.add_argument("--checkpoint", required=True, help=CHECKPOINT)
    add_data(parser)
    parser.add_argument("--images", type=int, metavar="N", help="measure the first N images only")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images of one size per process and forward pass")
    seeds = "seeds of the Hamburger's initial bases, such as 0-4; several print mean and spread"
    parser.add_argument("--bases-seeds", type=whole_numbers, metavar="LIST", help=seeds)
    add_inference(parser)
    parser.add_argument(
        "--results", metavar="FILE", help="JSON-lines file to append the row to (default: the run's results.jsonl)"
    )
    parser.add_argument("--class-table", metavar="FILE", help="CSV file of IoU, accuracy and share of every class")
    options = parser.parse(arguments)
    check_checkpoint(options.checkpoint)
    if options.data is not None:
        check_location(options.data, DATA_SETS)
    for option, file in (("--results", options.results), ("--class-table", options.class_table)):
        if file:
            check_file(file, option)
    from hamgan.distributed.failure_watch import FailureWatch
    from hamgan.distributed.group import joined_processes

    with joined_processes() as device, FailureWatch():
        _evaluate(options, options.device or device)


def _evaluate(options: argparse.Namespace, device: str | None) -> None:
    from hamgan.distributed.group import Processes
    from hamgan.evaluation.report import append_row, save_table
    from hamgan.sampling import default_device
    from hamgan.segmentation.data.opening import HELD_OUT, check_classes, open_source
    from hamgan.segmentation.evaluation import class_table, describe_scores, evaluate
    from hamgan.segmentation.loading import load_segmenter

    loaded = load_segmenter(options.checkpoint, device or default_device())
    settings = evaluation_settings(options, loaded.config)
    source = open_source(data_settings(options, loaded.config), settings.split or HELD_OUT)
    check_classes(source, loaded.network.classes, loaded.header.class_names)
    row = evaluate(loaded.network, source, settings, kimg=loaded.header.kimg, progress=sys.stderr.isatty())
    if not Processes.current().is_main:
        return
    print(class_table(row))
    print(f"\n{describe_scores(row)}\nprotocol: {row['protocol']}")
    run = Path(options.checkpoint)
    results = options.results or (run / "results.jsonl" if run.is_dir() else None)
    if results:
        print(f"results {append_row(row, results)}")
    if options.class_table:
        print(f"classes {save_table(row['class_table'], options.class_table)}")


def run_predict(arguments: Arguments, prog: str) -> None:
    """Label pictures and write label maps."""
    parser = Parser(
        prog=prog, description="Segment pictures: write a PNG for each, one byte per pixel, the index of its class."
    )
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="files, or folders of files")
    parser.add_argument("--checkpoint", required=True, help=CHECKPOINT)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FOLDER", help="folder for the label maps, NAME.png"
    )
    parser.add_argument("--overlays", action="store_true", help="write NAME_overlay.png as well")
    parser.add_argument("--arrays", action="store_true", help="write NAME.npz as well, with labels and class names")
    parser.add_argument("--probabilities", action="store_true", help="add the probabilities of all classes to NAME.npz")
    parser.add_argument("--bases-seed", type=int, default=0, metavar="N", help="seed of the Hamburger's initial bases")
    add_inference(parser)
    parser.add_argument("--force", action="store_true", help="allow an output folder that is not empty")
    options = parser.parse(arguments)
    from hamgan.segmentation.pictures import check_folder, find_pictures

    check_folder(options.output, options.force)
    pictures = find_pictures(options.pictures)
    check_checkpoint(options.checkpoint)
    from hamgan.progress import ProgressBar
    from hamgan.sampling import default_device
    from hamgan.segmentation.loading import load_segmenter
    from hamgan.segmentation.predict import LabelMap, write_labels

    loaded = load_segmenter(options.checkpoint, options.device or default_device())
    settings = evaluation_settings(options, loaded.config)
    problems: list[str] = []

    def label_all() -> Iterator[tuple[str, LabelMap]]:
        with ProgressBar(len(pictures), "label") as bar:
            for name, path in pictures:
                try:
                    yield name, loaded.label(path, settings, options.bases_seed)
                except DataError as error:
                    problems.append(str(error))
                bar.update()

    more = {"overlays": options.overlays, "arrays": options.arrays, "probabilities": options.probabilities}
    count = write_labels(label_all(), options.output, **more)
    print(f"{count:,} label maps in {options.output}")
    if problems:
        raise DataError(f"{len(problems):,} of {len(pictures):,} pictures have none; the first: {problems[0]}")


def run_inspect(arguments: Arguments, prog: str) -> None:
    """Read every label map of a data set, count its classes, and draw augmented samples."""
    parser = SEGMENTATION.parser(
        prog=prog, description="Check every image and label map of a data set, and draw augmented training images."
    )
    parser.add_argument("--output", metavar="FILE", default="inspection.png", help="sheet to draw")
    topic = asked_topic(list(arguments))
    if topic is not None:
        print(help_text(parser, topic, SEGMENTATION, ("data.source", "data.layout", "data.classes", "data.split")))
        return
    config, options = SEGMENTATION.parse(arguments, parser)
    check_location(config.data.source, DATA_SETS)
    from hamgan.segmentation.inspection import inspect

    inspect(config, Path(options.output))


def run_report(arguments: Arguments, prog: str) -> None:
    """Write a run as one HTML page."""
    parser = Parser(prog=prog, description="Write a report of a segmenter's run as one HTML page.")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--output", type=Path, help="file to write or replace (default: RUN/report.html)")
    parser.add_argument(
        "--preset", type=Path, help="configuration file to compare the run's with (default: the default values)"
    )
    options = parser.parse(arguments)
    check_checkpoint(options.run)
    from hamgan.segmentation.report import OF_A_SEGMENTER
    from hamgan.tracking.html.report import write_report

    print(f"report {write_report(options.run, options.output, options.preset, OF_A_SEGMENTER)}")


def run_demo(arguments: Arguments, prog: str) -> None:
    """Train on land cover, measure beside baselines, and draw picture, truth and prediction."""
    parser = SEGMENTATION.parser(prog=prog, description="Train the preset `land`, measure it and draw its predictions.")
    parser.set_defaults(flat_config(SEGMENTATION.load("land")))  # as the help shows them
    topic = asked_topic(list(arguments))
    if topic is not None:
        print(help_text(parser, topic, SEGMENTATION, FIRST))
        return
    config, _ = SEGMENTATION.parse(["--config", "land", *arguments], parser)
    from hamgan.segmentation.demo import demo

    demo(config)


def _ask_for_configuration(arguments: Arguments, prog: str) -> None:
    if not any(argument.partition("=")[0] == "--config" for argument in arguments):
        names = ", ".join(preset_names(SEGMENTATION.section))
        raise ConfigError(f"{prog}: --config is missing: name a YAML file or one of {names}")


COMMANDS: dict[str, tuple[Callable[[Arguments, str], None], str]] = {
    "train": (run_train, "train a configuration; the same command again resumes"),
    "evaluate": (run_evaluate, "measure mIoU, mAcc and aAcc, with their protocol"),
    "predict": (run_predict, "label pictures"),
    "inspect": (run_inspect, "check a data set, and draw augmented training images"),
    "convert": (run_convert, "convert segmenters of the official code or MMSegmentation"),
    "export": (run_export, "share a segmenter: ONNX for any image size, a folder or hub repository"),
    "cost": (run_cost, "count parameters and multiplications"),
    "report": (run_report, "write a run as one HTML page"),
    "demo": (run_demo, "train on a satellite picture in minutes, and draw the result"),
}
