"""Draw the random inputs of D and G in a step: latents, labels, initial bases and augmentation."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hamgan.config import Config
from hamgan.networks import Bases, Discriminator, Generator
from hamgan.training.augment import draw_augmentation
from hamgan.training.noise import Noise
from hamgan.training.schedules import settings_at


@dataclass
class DiscriminatorBatch:
    """Hold the input of one backward pass of D. Shapes: images [B, 3, R, R] in [-1, 1], labels [B], latents [B, z]."""

    images: Tensor
    labels: Tensor
    latents: Tensor
    fake_labels: Tensor
    generator_bases: Bases | None = None
    bases: Bases | None = None
    """Initial bases [2B*S, D, R] of D, for the generated images, then the real ones."""
    augmentation: dict[str, Tensor] = field(default_factory=dict)
    """Parameters of `augment` for the generated images, then the real ones."""
    nearby: Tensor | None = None
    """Latents [B, z] near ``latents``, for ``train.consistency.latent`` only."""
    transformation: dict[str, Tensor] = field(default_factory=dict)
    """Parameters of `augment` for the copies that `train.consistency` compares, in the order of ``augmentation``."""
    image_noise: dict[str, Tensor] = field(default_factory=dict)
    """Noise [B / stride, 3, R, R] for penalties by finite differences: ``r1`` on real, ``r2`` on generated images."""


@dataclass
class GeneratorBatch:
    """Hold the input of one backward pass of G. Shapes: latents [B, z], labels [B] (pairs for `train.mode_seeking`)."""

    latents: Tensor
    labels: Tensor
    generator_bases: Bases | None = None
    bases: Bases | None = None
    augmentation: dict[str, Tensor] = field(default_factory=dict)
    images: Tensor | None = None
    """Real images [B, 3, R, R], for the relativistic loss only."""
    image_labels: Tensor | None = None
    nearby: Tensor | None = None
    """Latents [B, z] near ``latents``, for ``train.consistency.spread`` only."""


@dataclass(frozen=True)
class Inputs:
    """Draw the inputs of both networks, as a function of the noise's seed and a position in images seen."""

    config: Config
    noise: Noise
    generator: Generator
    discriminator: Discriminator

    def for_discriminator(self, counter: int, images: Tensor, labels: Tensor) -> DiscriminatorBatch:
        """Return D's batch for real images [b, 3, R, R] and their labels [b]."""
        noise, consistency = self.noise, self.config.train.consistency
        latents, fake_labels = self._latents("d_latent", counter)
        if self.config.train.loss == "relativistic":  # compares a generated image with a real one of its class
            fake_labels = labels
        copied = consistency.real > 0 or consistency.fake > 0
        return DiscriminatorBatch(
            images,
            labels,
            latents,
            fake_labels,
            generator_bases=noise.bases("d_generator", counter, self.generator),
            bases=noise.bases("d_bases", counter, self.discriminator, copies=2),
            augmentation=self._augmentation("d_augment", counter, copies=2),
            nearby=self._nearby("d_nearby", counter, latents) if consistency.latent else None,
            transformation=self._transformation(consistency.transform, "d_transform", counter, 2) if copied else {},
            image_noise=self._image_noise(counter),
        )

    def for_generator(self, counter: int, images: Tensor, labels: Tensor) -> GeneratorBatch:
        """Return G's batch; ``images`` [b, 3, R, R] and ``labels`` [b] are the real ones that D has just seen."""
        noise, train = self.noise, self.config.train
        paired = train.loss == "relativistic"
        copies = 2 if paired else 1
        latents, drawn_labels = self._latents("g_latent", counter, pairs=train.mode_seeking > 0)
        return GeneratorBatch(
            latents,
            labels if paired else drawn_labels,
            generator_bases=noise.bases("g_generator", counter, self.generator),
            bases=noise.bases("g_bases", counter, self.discriminator, copies),
            augmentation=self._augmentation("g_augment", counter, copies),
            images=images if paired else None,
            image_labels=labels if paired else None,
            nearby=self._nearby("g_nearby", counter, latents) if train.consistency.spread else None,
        )

    def _latents(self, purpose: str, counter: int, pairs: bool = False) -> tuple[Tensor, Tensor]:
        return self.noise.latents(purpose, counter, self.config.generator.latent_dim, self.generator.num_classes, pairs)

    def _nearby(self, purpose: str, counter: int, latents: Tensor) -> Tensor:
        change, _ = self._latents(purpose, counter)
        return latents + self.config.train.consistency.sigma * change

    def _image_noise(self, counter: int) -> dict[str, Tensor]:
        train = self.config.train
        differences = train.finite_differences
        if not differences.enabled:
            return {}
        names = [name for name, gamma in (("r1", train.r1_gamma), ("r2", train.r2_gamma)) if gamma]
        return {name: self.noise.images(name, counter, self.config.resolution, differences.stride) for name in names}

    def _augmentation(self, purpose: str, counter: int, copies: int) -> dict[str, Tensor]:
        now = settings_at(self.config.train, counter)
        return self._transformation(now.augment, purpose, counter, copies, now.augment_probability)

    def _transformation(
        self, policy: Sequence[str], purpose: str, counter: int, copies: int, probability: float = 1.0
    ) -> dict[str, Tensor]:
        if not policy:
            return {}
        noise, generator = self.noise, self.noise.generator(purpose, counter)
        draws = [draw_augmentation(policy, noise.batch, generator, probability) for _ in range(copies)]
        return {name: torch.cat([noise.on_device(draw[name]) for draw in draws]) for name in policy}
