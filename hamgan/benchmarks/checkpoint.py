"""What a checkpoint costs: how long training stands still, and how long the disk takes in the background.

The networks, Adam's state and the average of G are real, and so is the code that a run saves them with. Training waits
for the check of the weights and the copy to main memory, and for the disk only where a checkpoint takes longer than the
time to the next one. How fast the run would be is an assumption: ``--images-per-second``, over all processes.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from hamgan.benchmarks.configuration import add_config_arguments, read_config
from hamgan.benchmarks.report import Report, Table
from hamgan.benchmarks.timing import default_clock, synchronise
from hamgan.checkpoint import Progress
from hamgan.config import CheckpointConfig, Config, ConfigError
from hamgan.networks import build_networks
from hamgan.saving import Saving
from hamgan.step import GanStep

SHARE = 0.01
"""What the loop may lose."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, how fast, on which disk."""
    parser.set_defaults(rounds=3)
    add_config_arguments(parser)
    parser.add_argument(
        "--images-per-second", type=float, default=2000.0, help="assumed speed of the run (default: 2000)"
    )
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")


def run(options: argparse.Namespace) -> Report:
    """Save some times, then the share of the time at the configured and the default interval."""
    if options.images_per_second <= 0:
        raise ConfigError(f"--images-per-second is {options.images_per_second}; it must be above 0")
    if options.folder is not None and not options.folder.is_dir():
        raise ConfigError(f"--folder {options.folder} is no folder")
    config = read_config(options.config, options.set)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        step = make_step(config, options.device)
        still, written, size = measure(replace(config, run_dir=folder), step, options.rounds)
    costs = Table(
        ["what", "seconds", "GB/s"],
        [
            ["training stands still: weights checked and copied", still, size / still / 1e9],
            ["meanwhile, in the background: written, synced, hashed", written, size / written / 1e9],
        ],
        f"One checkpoint and the generator's file: {size / 1e9:.2f} GB, {options.device}",
    )
    intervals = sorted({CheckpointConfig().every_kimg, config.checkpoint.every_kimg})
    shares = {kimg: lost_share(still, written, kimg * 1000, options.images_per_second) for kimg in intervals}
    limits = {kimg: fastest(still, written, kimg * 1000) for kimg in intervals}
    rows = [[kimg, kimg * 1000 / options.images_per_second, f"{shares[kimg]:.3%}", limits[kimg]] for kimg in intervals]
    headers = ["checkpoint.every_kimg", "seconds between", "of the time lost", f"{SHARE:.0%} at images/s"]
    verdict = [
        f"Every {kimg:g} kimg costs {shares[kimg]:.3%} of the time at {options.images_per_second:g} images/s, and less "
        f"than {SHARE:.0%} up to {limits[kimg]:,.0f} images/s."
        for kimg in intervals
    ]
    figures = {"still": still, "written": written, "bytes": size, "shares": shares, "limits": limits}
    clock = "CPU time" if default_clock(options.device) == "cpu" else "wall time"
    protocol = (
        f"Medians of {options.rounds} checkpoints; standing still in {clock}, {torch.get_num_threads()} thread(s), the "
        f"background in wall time. {options.images_per_second:g} images/s are an assumption."
    )
    return Report(f"Checkpoints of {config.name}", protocol, [costs, Table(headers, rows)], verdict, figures)


def make_step(config: Config, device: torch.device) -> GanStep:
    """The run's networks with all that a checkpoint holds: both Adams have made one step."""
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    step = GanStep(*build_networks(config), config.train, accelerator)
    for optimizer in (step.generator_optimizer, step.discriminator_optimizer):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
    return step


def measure(config: Config, step: GanStep, rounds: int) -> tuple[float, float, int]:
    """Median seconds that `Saving.save` takes and that the disk takes from there, and bytes; the first is not counted.

    Nothing trains meanwhile, so that the queue of a GPU is empty. The first is by the clock of `default_clock`.
    """
    now = time.process_time if default_clock(step.accelerator.device) == "cpu" else time.perf_counter
    saving = Saving(config, [str(index) for index in range(config.data.num_classes or 0)], step, print)
    still, written = [], []
    for number in range(rounds + 1):
        synchronise(step.accelerator.device)
        start = now()
        saving.save(Progress(images=1000 * (number + 1)))
        still.append(now() - start)
        start = time.perf_counter()
        saving.settle(strict=True)
        written.append(time.perf_counter() - start)
    saving.close()
    newest = config.folder / "checkpoints" / f"{rounds + 1:08d}"
    size = sum(path.stat().st_size for path in (*newest.iterdir(), config.folder / "generator.safetensors"))
    return statistics.median(still[1:]), statistics.median(written[1:]), size


def lost_share(still: float, written: float, images: int | float, speed: float) -> float:
    """Share of the time in which training stands still, with so many images between checkpoints."""
    training = images / speed
    lost = still + max(0.0, written - training)
    return lost / (training + lost)


def fastest(still: float, written: float, images: int | float) -> float:
    """Images per second up to which less than `SHARE` of the time is lost."""
    return images / max(still * (1 - SHARE) / SHARE, written)
