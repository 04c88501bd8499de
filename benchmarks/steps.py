"""Make a training step that can be timed: networks in one of three forms, the same start, made-up images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator

from benchmarks.plain import PlainStep, plain_form
from hamgan.config import Config, load_config
from hamgan.networks import build_networks
from hamgan.training.inputs import DiscriminatorBatch, GeneratorBatch, Inputs
from hamgan.training.noise import Noise
from hamgan.training.setup import make_accelerator
from hamgan.training.step import GanStep

Form = Literal["fast", "plain", "compiled"]
CLASSES = 1000
"""Classes of a configuration that names no number; training would read it from the data."""


def read_config(file: Path | None, overrides: Sequence[str]) -> Config:
    """Read a configuration and give it a number of classes. Raises ConfigError as `load_config` does."""
    config = load_config(file, list(overrides))
    if config.data.num_classes is None:
        config = replace(config, data=replace(config.data, num_classes=CLASSES))
    return config


def benchmark_accelerator(config: Config, device: torch.device) -> Accelerator:
    """Make the Accelerator of training with torch's number of threads, or a plain one to pass over a GPU."""
    if device.type == "cpu" and torch.accelerator.is_available():
        return Accelerator(cpu=True)
    threads = config.train.threads or torch.get_num_threads()
    return make_accelerator(replace(config, train=replace(config.train, threads=threads)))


@dataclass
class Workload:
    """Run steps of one form on one batch: D once, G, the average of G. The noise is drawn beforehand."""

    step: GanStep
    discriminator_batch: DiscriminatorBatch
    generator_batch: GeneratorBatch

    def __call__(self) -> None:
        """Run a whole step."""
        self.step.discriminator_step([self.discriminator_batch])
        self.step.generator_step([self.generator_batch])
        self.step.update_average(10**12)


def make_workload(config: Config, form: Form, batch: int, accelerator: Accelerator) -> Workload:
    """Make a step of ``config`` on ``batch`` images in one form; all forms begin with the same weights and noise."""
    train = replace(config.train, compile=form == "compiled")
    generator, discriminator = build_networks(config)
    step: GanStep
    if form == "plain":
        step = PlainStep(plain_form(generator), plain_form(discriminator), train, accelerator)
    else:
        step = GanStep(generator, discriminator, train, accelerator)
    return Workload(step, *draw_batches(config, step, batch))


def draw_batches(
    config: Config, step: GanStep, batch: int, counter: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[DiscriminatorBatch, GeneratorBatch]:
    """Draw what D and G see in one step: uniform noise for images, everything else as training draws it."""
    device = step.accelerator.device
    noise = Noise(config.seed, device, batch)
    inputs = Inputs(config, noise, step.generator, step.discriminator)
    random = noise.generator("flip", counter, device)
    shape = (batch, 3, config.resolution, config.resolution)
    images = torch.rand(shape, generator=random, device=device, dtype=dtype) * 2 - 1
    labels = torch.randint(step.generator.num_classes, (batch,), generator=random, device=device)
    shown, made = inputs.for_discriminator(counter, images, labels), inputs.for_generator(counter, images, labels)
    for drawn in (shown, made):
        drawn.latents = drawn.latents.to(dtype)
    return shown, made
