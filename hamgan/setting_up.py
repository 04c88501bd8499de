"""What a configuration becomes at the start of a run: an Accelerator, batches, classes, intervals, rates."""

from dataclasses import replace

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from hamgan.config import Config, ConfigError, TrainConfig
from hamgan.data import ImageSource


def make_accelerator(config: Config) -> Accelerator:
    """The Accelerator of a configuration: precision, trackers, and DDP without buffer broadcasts."""
    precision = config.train.precision
    if precision == "auto":
        precision = "bf16" if has_fast_bf16() else "fp32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.train.tf32
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    tracker = config.log.tracker
    return Accelerator(
        # Without this, Accelerate takes every process that was launched on a machine without GPU for the only one.
        cpu=not torch.accelerator.is_available(),
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=None if tracker == "none" else tracker,
        project_dir=str(config.folder),
        # Buffers agree by construction: the same power iterations, batch norm over all processes. Broadcasting them
        # in place between two forwards of a step would break autograd (pytorch/pytorch#175024).
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
    )


def has_fast_bf16() -> bool:
    """Whether bf16 pays: on GPUs that have it and on CPUs with matrix units for it.

    On such a CPU (Intel, AMX) the demo trains 1.55 times as fast as in fp32 (two threads); without AMX, bf16 is slower.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return not torch.accelerator.is_available() and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def micro_batch(config: Config, processes: int) -> int:
    """Images per backward pass over all processes; ConfigError unless everything divides."""
    train, parts = config.train, config.train.accumulation * processes
    where = f"{processes} process(es) x {train.accumulation} accumulation step(s)"
    if train.batch_size % parts:
        below = train.batch_size // parts * parts
        raise ConfigError(
            f"train.batch_size {train.batch_size} does not divide by {where}; take {below or parts} or {below + parts}"
        )
    share = train.batch_size // parts
    if train.mode_seeking and share % 2:
        raise ConfigError(
            f"train.mode_seeking compares pairs, and train.batch_size {train.batch_size} gives {share} images to each "
            f"of {where}; take {parts * max(share - 1, 2)} or {parts * (share + 1)}"
        )
    return train.batch_size // train.accumulation


def with_classes(config: Config, source: ImageSource) -> Config:
    """The configuration with the number of classes of its data; ConfigError when it names another number."""
    count = len(source.class_names)
    if config.data.num_classes not in (None, count):
        raise ConfigError(f"data.num_classes is {config.data.num_classes}, but {source.name} has {count} classes")
    return replace(config, data=replace(config.data, num_classes=count))


def learning_rate_factor(train: TrainConfig, images: int) -> float:
    """What the learning rates are multiplied by after so many images."""
    return 1.0 if train.lr_schedule == "constant" else max(0.0, 1.0 - images / (train.total_kimg * 1000))


def crosses(before: int, after: int, kimg: float) -> bool:
    """Whether a multiple of an interval lies between two counts of images, the second included; never for 0."""
    images = round(kimg * 1000)
    return images > 0 and after // images != before // images
