"""Build what D and G see in a step: real images from the loader, everything random from the noise of the counter."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hamgan.config import Config
from hamgan.data import BatchLoader, ImageSource
from hamgan.training.augment import draw_augmentation
from hamgan.training.noise import Noise
from hamgan.training.step import DiscriminatorBatch, GanStep, GeneratorBatch


class Batches:
    """Build the micro-batches of every step; all of them are functions of the seed and the images seen.

    Holds the loader's workers until `close`.
    """

    def __init__(self, config: Config, source: ImageSource, noise: Noise, step: GanStep, images_seen: int) -> None:
        self.config, self.noise, self.step = config, noise, step
        self._loader = BatchLoader(
            source,
            seed=noise.seed,
            stream=noise.stream,
            start=images_seen,
            batch_size=noise.batch,
            rank=noise.rank,
            world_size=noise.processes,
            prefetch=config.data.prefetch,
            pin=noise.device.type == "cuda",
        )

    def close(self) -> None:
        """End the loader."""
        self._loader.close()

    def for_discriminator(self, images_seen: int, index: int) -> list[DiscriminatorBatch]:
        """Return the micro-batches of the index-th step of D; they must be asked for in order."""
        counter = images_seen + index * self.config.train.batch_size
        return [self._discriminator_batch(counter + part * self.noise.batch) for part in self._parts()]

    def _parts(self) -> range:
        return range(self.config.train.accumulation)

    def _discriminator_batch(self, counter: int) -> DiscriminatorBatch:
        noise, step = self.noise, self.step
        images, labels = self._real_images(counter)
        latents, fake_labels = self._latents("d_latent", counter)
        return DiscriminatorBatch(
            images,
            labels,
            latents,
            fake_labels,
            generator_bases=noise.bases("d_generator", counter, step.generator),
            bases=noise.bases("d_bases", counter, step.discriminator, copies=2),
            augmentation=self._augmentation("d_augment", counter, copies=2),
        )

    def for_generator(self, images_seen: int, shown: Sequence[DiscriminatorBatch]) -> list[GeneratorBatch]:
        """Return the micro-batches of the step of G, which follows D's step on the batches ``shown``."""
        counters = [images_seen + part * self.noise.batch for part in self._parts()]
        return [self._generator_batch(counter, batch) for counter, batch in zip(counters, shown, strict=True)]

    def _generator_batch(self, counter: int, shown: DiscriminatorBatch) -> GeneratorBatch:
        noise, step = self.noise, self.step
        latents, labels = self._latents("g_latent", counter, pairs=self.config.train.mode_seeking > 0)
        # The relativistic loss compares a generated image with a real one of its class.
        paired = self.config.train.loss == "relativistic"
        copies = 2 if paired else 1
        return GeneratorBatch(
            latents,
            shown.labels if paired else labels,
            generator_bases=noise.bases("g_generator", counter, step.generator),
            bases=noise.bases("g_bases", counter, step.discriminator, copies),
            augmentation=self._augmentation("g_augment", counter, copies),
            images=shown.images if paired else None,
            image_labels=shown.labels if paired else None,
        )

    def _latents(self, purpose: str, counter: int, pairs: bool = False) -> tuple[Tensor, Tensor]:
        size, classes = self.config.generator.latent_dim, self.step.generator.num_classes
        return self.noise.latents(purpose, counter, size, classes, pairs)

    def _real_images(self, counter: int) -> tuple[Tensor, Tensor]:
        """Take the loader's next uint8 batch [b, H, W, 3] as [b, 3, H, W] in [-1, 1] on the device, and its labels."""
        images, labels = next(self._loader)
        device = self.noise.device
        images = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
        if self.config.data.flip:
            flips = self.noise.flips(counter)
            images = torch.where(flips[:, None, None, None], images.flip(3), images)
        return images, labels.to(device, non_blocking=True)

    def _augmentation(self, purpose: str, counter: int, copies: int) -> dict[str, Tensor]:
        policy = self.config.train.augment
        if not policy:
            return {}
        noise, generator = self.noise, self.noise.generator(purpose, counter)
        draws = [draw_augmentation(policy, noise.batch, generator) for _ in range(copies)]
        return {name: torch.cat([noise.on_device(draw[name]) for draw in draws]) for name in policy}
