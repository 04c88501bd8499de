"""Compare a segmenter as its configuration has it with one update in its Hamburger, and with none: at equal time.

Every variant trains with several seeds for as much time as the first one takes, and is measured on the held-out split.
Everything lies in ``--output``: the same command goes on where it was stopped, and with more seeds trains the missing.
"""

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.recipe.result import write_into_page
from benchmarks.report import Report, Table, spread
from benchmarks.timing import Work, time_in_turn
from hamgan.errors import ConfigError
from hamgan.files import JsonObject, write_atomically
from hamgan.segmentation import build_segmenter, load_config, load_segmenter
from hamgan.segmentation.data.loader import TrainingLoader
from hamgan.segmentation.data.opening import HELD_OUT, open_source
from hamgan.segmentation.evaluation import evaluate
from hamgan.segmentation.schema import SegmentationConfig
from hamgan.segmentation.step import SegmentationStep, make_input
from hamgan.segmentation.training import train, with_classes
from hamgan.training.noise import Noise
from hamgan.training.setup import start_accelerator

BASE = "hamburger"
VARIANTS = {
    BASE: ["head.context=hamburger"],
    "one update": ["head.context=hamburger", "head.hamburger.steps=1", "head.hamburger.eval_steps=1"],
    "no context": ["head.context=none"],
}
"""Keys in which each variant differs from ``--config``."""
STEPS = 8
"""Training steps in a round of the measurement of time."""


def run(options: argparse.Namespace) -> Report:
    """Train and measure what is missing, seed by seed; return the table."""
    options.output.mkdir(parents=True, exist_ok=True)
    lengths, protocol = choose_lengths(options)
    found: dict[str, dict[int, JsonObject]] = {name: {} for name in VARIANTS}
    for seed in options.seeds:
        for name in VARIANTS:
            config = variant(options, name, seed, lengths[name])
            train(config)
            loaded = load_segmenter(config.folder, str(options.device))
            row = evaluate(loaded.network, open_source(config.data, HELD_OUT), loaded.config.eval, kimg=lengths[name])
            found[name][seed] = row
            print(f"{name}, seed {seed}: mIoU {100 * row['miou']:.1f}", flush=True)
    measured_on = found[BASE][options.seeds[0]]["protocol"]
    report = Report(
        "With and without Hamburger",
        f"Configuration `{options.config}`, {protocol}; measured on {measured_on}. Median (lowest to highest) over the "
        f"seeds {', '.join(map(str, options.seeds))}.",
        [_summary(found, lengths), _classes(found)],
        figures={"lengths": lengths, "rows": found},
    )
    if options.docs:
        write_into_page(report, options.docs, options.output.resolve().name)
    return report


def variant(options: argparse.Namespace, name: str, seed: int, kimg: float) -> SegmentationConfig:
    """Return the configuration of one run."""
    folder = options.output / f"{name.replace(' ', '-')}-{seed}"
    own = [f"name={folder.name}", f"run_dir={folder}", f"seed={seed}", f"train.total_kimg={kimg}"]
    quiet = ["eval.every_kimg=0", "log.samples_every_kimg=0", "checkpoint.keep_last=1"]
    return load_config(options.config, [*VARIANTS[name], *own, *quiet])


def choose_lengths(options: argparse.Namespace) -> tuple[dict[str, float], str]:
    """Return thousands of images for every variant, of equal time, and how that was measured, once for the folder.

    Raises ConfigError where it holds runs of another length.
    """
    file: Path = options.output / "lengths.json"
    if not file.is_file():
        with contextlib.ExitStack() as stack:
            works = {name: stack.enter_context(_steps(options, name)) for name in VARIANTS}
            timings = time_in_turn(works, options.rounds, device=options.device)
        kimg = {name: round(options.kimg / timings.ratio(name, BASE), 2) for name in VARIANTS}
        clock = f"as much {timings.clock} time as {options.kimg:g} kimg of the first variant"
        write_atomically(file, json.dumps({"kimg": kimg, "protocol": clock}) + "\n")
    kept = json.loads(file.read_text())
    if kept["kimg"][BASE] != options.kimg:
        raise ConfigError(
            f"--output {options.output} holds runs of {kept['kimg'][BASE]:g} kimg, not {options.kimg:g}; take another "
            "folder"
        )
    return kept["kimg"], kept["protocol"]


@contextlib.contextmanager
def _steps(options: argparse.Namespace, name: str) -> Iterator[Work]:
    """Give a function that makes some training steps, with the reading and augmenting of their images."""
    config = variant(options, name, 0, options.kimg)
    source, train = open_source(config.data), config.train
    config = with_classes(config, source)
    threads = train.threads or torch.get_num_threads()
    step = SegmentationStep(
        build_segmenter(config), config, start_accelerator(train.precision, tf32=train.tf32, threads=threads)
    )
    micro_batch, seen = train.batch_size // train.accumulation, 0
    noise = Noise(config.seed, step.accelerator.device, micro_batch)
    batches = TrainingLoader(
        source, config.augment, seed=config.seed, start=0, batch_size=micro_batch, threads=config.data.threads
    )

    def make_steps() -> None:
        nonlocal seen
        for _ in range(STEPS):
            counters = [seen + part * micro_batch for part in range(train.accumulation)]
            step.step([make_input(next(batches), step.network, noise, counter) for counter in counters])
            step.update_average()
            seen += train.batch_size

    with contextlib.closing(batches):
        yield make_steps


def _summary(found: dict[str, dict[int, JsonObject]], lengths: dict[str, float]) -> Table:
    """Return a row per variant: length, time, scores, and the distance from the first variant seed by seed."""
    headers = ["variant", "kimg", "time per image", "mIoU", "aAcc", "mIoU beyond the first"]
    rows = []
    for name, runs in found.items():
        beyond = [100 * (row["miou"] - found[BASE][seed]["miou"]) for seed, row in runs.items()]
        scores = [spread([100 * row[key] for row in runs.values()], "{:.1f}".format) for key in ("miou", "aacc")]
        cost = f"{lengths[BASE] / lengths[name]:.2f}"
        rows.append(
            [name, f"{lengths[name]:g}", cost, *scores, None if name == BASE else spread(beyond, "{:+.1f}".format)]
        )
    return Table(headers, rows)


def _classes(found: dict[str, dict[int, JsonObject]]) -> Table:
    """Return the IoU of every class."""
    names = [entry["class"] for entry in next(iter(found[BASE].values()))["class_table"]]
    rows = []
    for index, name in enumerate(names):
        ious = [[row["class_table"][index]["iou"] for row in runs.values()] for runs in found.values()]
        rows.append([name, *(spread([100 * v for v in values if v is not None], "{:.1f}".format) for values in ious)])
    return Table(["IoU", *found], rows)
