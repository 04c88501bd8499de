"""Prepare a run from its configuration: Accelerator, batch sizes, classes, and the lines printed at the start."""

import hashlib
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from hamgan.checkpoint import read_class_names
from hamgan.config import Config
from hamgan.data import ImageSource, class_histogram
from hamgan.data.finding.names import fold
from hamgan.data.histogram import histogram_lines
from hamgan.data.source import name_some
from hamgan.distributed.cores import core_count
from hamgan.distributed.group import from_main, rank, start_processes, world_size
from hamgan.distributed.launcher import launched_precision
from hamgan.errors import ConfigError
from hamgan.hamburger.precision import set_tf32
from hamgan.machine import processor_flags
from hamgan.networks import count_parameters
from hamgan.training.compilation import describe_compilation
from hamgan.training.step import GanStep

WORK_FOR_MORE_THREADS = 10_000_000
"""Work of a step from which on it uses all cores: images per process x pixels x squared widths of G and D together; the
demo's is 5 million."""


def make_accelerator(config: Config) -> Accelerator:
    """Make the Accelerator for a GAN's configuration; starts the processes."""
    start_processes()
    threads = choose_threads(config, world_size())
    return start_accelerator(config.train.precision, tf32=config.train.tf32, threads=threads)


def start_accelerator(precision: str, *, tf32: bool, threads: int) -> Accelerator:
    """Make an Accelerator with a precision, and set the threads of a step; call it after the processes were started."""
    launched = launched_precision(precision)
    if precision == "auto":
        precision = launched or ("bf16" if has_fast_bf16() else "fp32")
    # Attention's values are wider than its keys, which cuDNN's kernel supports on some cards only.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True  # the shapes of a run do not change, so algorithms are tried once
    accelerator = Accelerator(
        # Without this, on a machine without a GPU Accelerate treats every launched process as the only one.
        cpu=not torch.accelerator.is_available(),
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    set_tf32(tf32)  # after Accelerate, which allows it if its own configuration asks to compile
    return accelerator


def choose_threads(config: Config, processes: int) -> int:
    """Return the OpenMP threads of a step: `train.threads`, else one for small networks and all cores for others.

    OpenMP's threads synchronise after every kernel. If kernels take microseconds, like the demo's, two threads are 1.3
    times as fast as one on two idle cores, but a tenth as fast as one if another program keeps a core busy.
    """
    train, share = config.train, config.train.batch_size // config.train.accumulation // processes
    if train.threads or torch.accelerator.is_available():
        return train.threads or torch.get_num_threads()
    widths = config.generator.channels**2 + config.discriminator.channels**2
    return 1 if share * config.resolution**2 * widths < WORK_FOR_MORE_THREADS else core_count()


def has_fast_bf16() -> bool:
    """Return whether bf16 is fast: on GPUs that have it (CUDA emulates it on others) and on CPUs with matrix units.

    On such a CPU (Intel, AMX) the demo trains 1.55 times as fast as in fp32 (two threads); without AMX, bf16 is slower.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return not torch.accelerator.is_available() and "amx_bf16" in processor_flags()


def check_same_everywhere(what: str, seen: str) -> None:
    """Raise ConfigError in a process whose ``seen`` differs from the first process's, for example on another machine.

    Every process reads data and checkpoints from its own machine's files.
    """
    first = from_main(seen)
    if seen != first:
        raise ConfigError(
            f"process {rank()} on {socket.gethostname()} sees {what} {seen}, but the first process sees {first}; give "
            "all machines the same files, or a file system that they share"
        )


def describe_data(source: ImageSource) -> str:
    """Describe the images and labels of a source in one line that machines can compare."""
    digest = hashlib.sha256(repr(source.class_names).encode() + np.asarray(source.labels, np.int64).tobytes())
    return f"{len(source):,} images of {len(source.class_names):,} classes, labels {digest.hexdigest()[:12]}"


def micro_batch(config: Config, processes: int) -> int:
    """Return the images per backward pass over all processes; ConfigError unless the batch is divisible."""
    train, parts = config.train, config.train.accumulation * processes
    batch, where = divide_batch(train.batch_size, train.accumulation, processes)
    share, stride = train.batch_size // parts, train.finite_differences.stride
    if train.finite_differences.enabled and share % stride:
        raise ConfigError(
            f"train.finite_differences.stride {stride} does not divide the {share} images of each of {where}; take "
            f"another stride, or train.batch_size {parts * max(share // stride, 1) * stride}"
        )
    if train.mode_seeking and share % 2:
        raise ConfigError(
            f"train.mode_seeking compares pairs, and train.batch_size {train.batch_size} gives {share} images to each "
            f"of {where}; take {parts * max(share - 1, 2)} or {parts * (share + 1)}"
        )
    return batch


def divide_batch(batch_size: int, accumulation: int, processes: int) -> tuple[int, str]:
    """Return the images per backward pass over all processes, and a description of the division; raises ConfigError."""
    parts, where = accumulation * processes, f"{processes} process(es) x {accumulation} accumulation step(s)"
    if batch_size % parts:
        below = batch_size // parts * parts
        near = f"{below} or {below + parts}" if below else f"{parts}"
        raise ConfigError(f"train.batch_size {batch_size} does not divide by {where}; take {near}")
    return batch_size // accumulation, where


def check_number_of_classes(given: int | None, source: str, count: int) -> None:
    """Raise ConfigError if ``data.num_classes`` is given and differs from the number of classes of the data."""
    if given not in (None, count):
        hint = f"to train on it: --data.num_classes {count}"
        raise ConfigError(f"data.num_classes is {given}, but {source} has {count} classes; {hint}")


def with_classes(config: Config, source: ImageSource) -> Config:
    """Return the configuration with its data's number of classes and selection; ConfigError if it has others."""
    count = len(source.class_names)
    check_number_of_classes(config.data.num_classes, source.name, count)
    selected = source.describe().get("selection")
    if config.data.selected not in (None, selected):
        raise ConfigError(f"data.selected is {config.data.selected!r}, but {source.name} is {selected or 'whole'}")
    return replace(config, data=replace(config.data, num_classes=count, selected=selected))


def keep_class_order(source: ImageSource, run: Path, others: bool = False) -> None:
    """Reorder a source's classes as in the run that is resumed, in place.

    Raises ConfigError if the source has other classes, unless ``others`` allows them.
    """
    recorded, found = read_class_names(run), source.class_names
    if recorded is None or recorded == found:
        return
    numbers = {fold(name): number for number, name in enumerate(recorded)}
    if len(numbers) != len(recorded) or sorted(numbers) != sorted(map(fold, found)):
        if others:
            return
        other = sorted(set(found) ^ set(recorded))
        raise ConfigError(
            f"{run} was trained on other classes than {source.name} has: {len(recorded)} and {len(found)}, "
            f"{name_some(other)} only in one; choose another name or --run_dir for a new run"
        )
    source.labels = np.asarray([numbers[fold(name)] for name in found], np.int64)[source.labels]
    source.class_names = recorded


def crosses(before: int, after: int, kimg: float) -> bool:
    """Return whether a multiple of ``kimg`` is in (before, after], both in images; False if ``kimg`` is 0."""
    images = round(kimg * 1000)
    return images > 0 and after // images != before // images


def describe_run(config: Config, source: ImageSource, step: GanStep) -> list[str]:
    """Return lines that describe run folder, data, networks, division of the batch, device and precision."""
    train, histogram, processes = config.train, class_histogram(source), world_size()
    evaluation = [_describe_evaluation(config)] if config.eval.every_kimg > 0 else []
    precision = step.accelerator.mixed_precision.replace("no", "fp32")
    return [
        f"run       {config.folder}",
        f"data      {source.name}/{source.split}: {len(source):,} images at {config.resolution} px, "
        f"{len(histogram):,} classes",
        "classes   " + f"\n{'':10}".join(histogram_lines(source.class_names, histogram)),
        *([f"selection {config.data.selected}"] if config.data.selected else []),
        *([f"left out  {left_out}"] if (left_out := source.describe().get("left_out")) else []),
        f"networks  G {count_parameters(step.generator):,} and D {count_parameters(step.discriminator):,} parameters",
        f"batch     {train.batch_size} images = {processes} process(es) x {train.accumulation} accumulation x "
        f"{train.batch_size // train.accumulation // processes}",
        f"device    {step.accelerator.device}, {precision}, TF32 {'on' if train.tf32 else 'off'}"
        + (f", {torch.get_num_threads()} of {core_count()} cores" if step.accelerator.device.type == "cpu" else ""),
        *([f"compiled  {describe_compilation(train, step.accelerator.device)}"] if train.compile else []),
        *evaluation,
    ]


def _describe_evaluation(config: Config) -> str:
    from hamgan.evaluation.studies.cost import evaluation_share  # torch-fidelity is not needed to train

    settings = config.eval
    return (
        f"evaluate  {settings.num_samples:,} samples every {settings.every_kimg:g} kimg: "
        f"{evaluation_share(config):.1%} of the run's FLOPs (counted, not timed)"
    )
