"""Build the batches of a run from the loader's real images and the noise at the current position."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hamgan.config import Config
from hamgan.data import BatchLoader, ImageSource
from hamgan.training.inputs import DiscriminatorBatch, GeneratorBatch, Inputs
from hamgan.training.noise import Noise
from hamgan.training.step import GanStep


class Batches:
    """Build the micro-batches of every step, which are functions of the seed and the images seen.

    Keeps the loader's threads until `close`.
    """

    def __init__(self, config: Config, source: ImageSource, noise: Noise, step: GanStep, images_seen: int) -> None:
        self.config, self.noise = config, noise
        self._inputs = Inputs(config, noise, step.generator, step.discriminator)
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
        """Stop the loader."""
        self._loader.close()

    def for_discriminator(self, images_seen: int, index: int) -> list[DiscriminatorBatch]:
        """Return the micro-batches of the index-th step of D; call it in the order of the steps."""
        counters = self._counters(images_seen + index * self.config.train.batch_size)
        return [self._inputs.for_discriminator(counter, *self._real_images(counter)) for counter in counters]

    def for_generator(self, images_seen: int, shown: Sequence[DiscriminatorBatch]) -> list[GeneratorBatch]:
        """Return the micro-batches of the step of G that follows D's step on the batches ``shown``."""
        pairs = zip(self._counters(images_seen), shown, strict=True)
        return [self._inputs.for_generator(counter, batch.images, batch.labels) for counter, batch in pairs]

    def _counters(self, images_seen: int) -> list[int]:
        """Return the position, in images seen, of every micro-batch of a step."""
        return [images_seen + part * self.noise.batch for part in range(self.config.train.accumulation)]

    def _real_images(self, counter: int) -> tuple[Tensor, Tensor]:
        """Take the loader's next uint8 batch [b, H, W, 3] as [b, 3, H, W] in [-1, 1] on the device, and its labels."""
        images, labels = next(self._loader)
        device = self.noise.device
        images = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
        if self.config.data.flip:
            flips = self.noise.flips(counter)
            images = torch.where(flips[:, None, None, None], images.flip(3), images)
        return images, labels.to(device, non_blocking=True)
