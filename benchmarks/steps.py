"""A training step that can be timed: networks in one of three forms, the same start, made-up images."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from accelerate import Accelerator

from benchmarks.plain import PlainStep, plain_form
from hamgan.config import Config
from hamgan.networks import build_networks
from hamgan.training.noise import Noise
from hamgan.training.step import DiscriminatorBatch, GanStep, GeneratorBatch

Form = Literal["fast", "plain", "compiled"]


@dataclass
class Workload:
    """Steps of one form on one batch; each method is one phase. The noise is drawn beforehand."""

    step: GanStep
    discriminator_batch: DiscriminatorBatch
    generator_batch: GeneratorBatch

    def discriminator(self) -> None:
        """Fake images, D forward and backward, its update."""
        self.step.discriminator_step([self.discriminator_batch])

    def generator(self) -> None:
        """G and D forward and backward, the update of G."""
        self.step.generator_step([self.generator_batch])

    def average(self) -> None:
        """The average of G."""
        self.step.update_average(10**12)

    def __call__(self) -> None:
        """A whole step: D once, G, the average."""
        self.discriminator()
        self.generator()
        self.average()


def make_workload(config: Config, form: Form, batch: int, accelerator: Accelerator) -> Workload:
    """A step of ``config`` on ``batch`` images in one form; all forms begin with the same weights and noise."""
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
    """What D and G see in one step: uniform noise for images, everything else as training draws it."""
    device, classes = step.accelerator.device, step.generator.num_classes
    noise = Noise(config.seed, device, batch)
    random = noise.generator("flip", counter)
    shape = (batch, 3, config.resolution, config.resolution)
    images = torch.rand(shape, generator=random, device=device, dtype=dtype) * 2 - 1
    labels = torch.randint(classes, (batch,), generator=random, device=device)
    draw: Callable[[str], tuple[torch.Tensor, torch.Tensor]] = lambda purpose: noise.latents(  # noqa: E731
        purpose, counter, config.generator.latent_dim, classes
    )
    latents, fake_labels = draw("d_latent")
    discriminator_batch = DiscriminatorBatch(
        images,
        labels,
        latents.to(dtype),
        fake_labels,
        generator_bases=noise.bases("d_generator", counter, step.generator),
        bases=noise.bases("d_bases", counter, step.discriminator, copies=2),
    )
    latents, fake_labels = draw("g_latent")
    generator_batch = GeneratorBatch(
        latents.to(dtype),
        fake_labels,
        generator_bases=noise.bases("g_generator", counter, step.generator),
        bases=noise.bases("g_bases", counter, step.discriminator),
    )
    return discriminator_batch, generator_batch
