"""What D and G see in a step: real images from the loader, everything random from the noise of the counter."""

import torch
from torch import Tensor

from hamgan.config import Config
from hamgan.data import BatchLoader
from hamgan.training.augment import draw_augmentation
from hamgan.training.noise import Noise
from hamgan.training.step import DiscriminatorBatch, GanStep, GeneratorBatch


class Batches:
    """Builds the micro-batches of every step; all of them are functions of the seed and the images seen."""

    def __init__(self, config: Config, loader: BatchLoader, noise: Noise, step: GanStep) -> None:
        self.config, self.loader, self.noise, self.step = config, loader, noise, step
        self._reals: list[tuple[Tensor, Tensor]] = []

    def for_discriminator(self, images_seen: int, index: int) -> list[DiscriminatorBatch]:
        """The micro-batches of the index-th step of D after so many images."""
        counter = images_seen + index * self.config.train.batch_size
        self._reals = []
        return [self._discriminator_batch(counter + part * self.noise.batch) for part in self._parts()]

    def _parts(self) -> range:
        return range(self.config.train.accumulation)

    def _discriminator_batch(self, counter: int) -> DiscriminatorBatch:
        noise, step = self.noise, self.step
        images, labels = self._real_images(counter)
        self._reals.append((images, labels))
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

    def for_generator(self, images_seen: int) -> list[GeneratorBatch]:
        """The micro-batches of the step of G after so many images."""
        return [self._generator_batch(images_seen + part * self.noise.batch, part) for part in self._parts()]

    def _generator_batch(self, counter: int, part: int) -> GeneratorBatch:
        noise, step = self.noise, self.step
        latents, labels = self._latents("g_latent", counter, pairs=self.config.train.mode_seeking > 0)
        paired = self.config.train.loss == "relativistic"
        images = None
        if paired:  # a generated image is compared with a real one of its class
            images, labels = self._reals[part]
        copies = 2 if paired else 1
        return GeneratorBatch(
            latents,
            labels,
            generator_bases=noise.bases("g_generator", counter, step.generator),
            bases=noise.bases("g_bases", counter, step.discriminator, copies),
            augmentation=self._augmentation("g_augment", counter, copies),
            images=images,
            image_labels=labels if paired else None,
        )

    def _latents(self, purpose: str, counter: int, pairs: bool = False) -> tuple[Tensor, Tensor]:
        size, classes = self.config.generator.latent_dim, self.step.generator.num_classes
        return self.noise.latents(purpose, counter, size, classes, pairs)

    def _real_images(self, counter: int) -> tuple[Tensor, Tensor]:
        """The loader's next uint8 batch [b, H, W, 3] on the device as [b, 3, H, W] in [-1, 1], and its labels."""
        images, labels = next(self.loader)
        device = self.noise.device
        images = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
        if self.config.data.flip:
            flips = self.noise.flips(counter)
            images = torch.where(flips[:, None, None, None], images.flip(3), images)
        # A copy on the CPU too: the loader fills its buffers again.
        return images, labels.to(device, non_blocking=True, copy=True)

    def _augmentation(self, purpose: str, counter: int, copies: int) -> dict[str, Tensor]:
        policy = self.config.train.augment
        if not policy:
            return {}
        noise, generator = self.noise, self.noise.generator(purpose, counter)
        draws = [draw_augmentation(policy, noise.batch, noise.device, generator) for _ in range(copies)]
        return {name: torch.cat([noise.share(draw[name]) for draw in draws]) for name in policy}
