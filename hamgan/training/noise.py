"""Draw all randomness of training as a function of (seed, purpose, images seen).

Resuming exactly needs no saved state, and every draw is made for the global batch and sliced by rank, so that one
process and many see the same noise. Latents, labels, flips and augmentations are drawn on the CPU and are the same on
every machine. Initial bases and noise on images are too large for that and are drawn on the device: they differ between
CPU and GPU and, beyond some hundred thousand values, which a GPU splits among its multiprocessors, between models of
GPUs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hamgan.networks import Bases, Discriminator, Generator

# One random stream per purpose. The numbers must not change: resumed runs depend on them.
PURPOSES = {"d_latent": 1, "g_latent": 2, "d_generator": 3, "g_generator": 4, "d_bases": 5, "g_bases": 6, "flip": 7}
PURPOSES |= {"d_augment": 8, "g_augment": 9}  # 10 belonged to a purpose that was removed
PURPOSES |= {"d_nearby": 11, "g_nearby": 12, "d_transform": 13, "r1": 14, "r2": 15}
PURPOSES |= {"segmenter": 32}


@dataclass(frozen=True)
class Noise:
    """Draw the noise of this process. ``batch`` is the size of the global micro-batch; ``stream`` changes all draws."""

    seed: int
    device: torch.device
    batch: int
    rank: int = 0
    processes: int = 1
    stream: int = 0

    def generator(self, purpose: str, counter: int, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a random generator for one purpose at one position."""
        entropy = np.random.SeedSequence([self.seed, self.stream, PURPOSES[purpose], counter])
        return torch.Generator(device).manual_seed(int(entropy.generate_state(1, np.uint64)[0]) >> 1)

    def on_device(self, values: Tensor) -> Tensor:
        """Return this rank's part of a draw for the global batch, copied to the device without a wait."""
        share = self.share(values)
        if self.device.type != "cuda":
            return share.to(self.device)
        return share.pin_memory().to(self.device, non_blocking=True)

    def share(self, values: Tensor) -> Tensor:
        """Return this rank's contiguous part of a draw for the global batch (axis 0, a multiple of the batch)."""
        return values.chunk(self.processes)[self.rank] if self.processes > 1 else values

    def latents(
        self, purpose: str, counter: int, size: int, classes: int, pairs: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Draw z [b, size] from N(0, 1) and uniform labels [b]; ``pairs``: rows 0 and 1, 2 and 3, ... share a label."""
        generator = self.generator(purpose, counter)
        z = torch.randn(self.batch, size, generator=generator)
        labels = torch.randint(classes, (self.batch,), generator=generator)
        if pairs:
            labels[1::2] = labels[0::2]
        return self.on_device(z), self.on_device(labels)

    def bases(self, purpose: str, counter: int, network: Generator | Discriminator, copies: int = 1) -> Bases:
        """Draw initial bases of all Hamburgers for ``copies`` batches in a row (D sees generated, then real images)."""
        generator = self.generator(purpose, counter, self.device)
        draws = [network.draw_bases(self.batch, self.device, generator) for _ in range(copies)]
        return {key: self._join([draw[key] for draw in draws]) for key in draws[0]}

    def _join(self, draws: Sequence[Tensor | tuple[Tensor, Tensor]]) -> Tensor | tuple[Tensor, Tensor]:
        """Join this rank's part of every draw; in dual mode a draw is a pair (spatial, channel)."""
        pairs = [draw for draw in draws if isinstance(draw, tuple)]
        if pairs:
            spatial, channel = (torch.cat([self.share(pair[side]) for pair in pairs]) for side in (0, 1))
            return spatial, channel
        return torch.cat([self.share(draw) for draw in draws if isinstance(draw, Tensor)])

    def images(self, purpose: str, counter: int, resolution: int, stride: int) -> Tensor:
        """Draw noise [b / stride, 3, R, R] from N(0, 1) for every stride-th image of the batch, on the device."""
        shape = (self.batch // stride, 3, resolution, resolution)
        generator = self.generator(purpose, counter, self.device)
        return self.share(torch.randn(shape, generator=generator, device=self.device))

    def flips(self, counter: int) -> Tensor:
        """Draw which images of the batch are mirrored, bool [b]."""
        return self.on_device(torch.rand(self.batch, generator=self.generator("flip", counter)) < 0.5)
