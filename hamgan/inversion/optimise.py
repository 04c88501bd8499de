"""Invert images by optimisation: find the latent and the class whose image is nearest to a given one.

Zhu et al. 2016 and Creswell & Bharath 2018 optimise z from random starts; Abdal et al. 2019 (StyleGAN) show the value
of pixels combined with a perceptual distance, and of a good start. Here the starts are the nearest of many random
samples of all classes; the best result decides the class.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.stats import chi
from torch import Tensor

from hamgan.distributed.cores import core_count, map_on_cores
from hamgan.errors import ConfigError
from hamgan.evaluation.features.efficientnet import EfficientNetLite0Extractor
from hamgan.hamburger.precision import using_tf32
from hamgan.inversion.distance import ImageDistance
from hamgan.progress import ProgressBar
from hamgan.sampling import LoadedGenerator, truncated_latent

LEARNING_RATE = 0.2
ROUNDS = ((1.0, 0.25), (0.25, 0.75))
"""Rounds as (share of the starts, share of the steps); most starts end in poor minima and are dropped early."""
SEARCHED = 4096
"""Largest number of random samples to choose starts from; with many classes each gets fewer than `samples`."""
RANKED = 64
"""Random samples, the nearest by pixels, that are compared by the whole distance, which is expensive."""


@dataclass(frozen=True)
class Inversion:
    """Hold the latent [latent_dim] and class found for an image, for ``generator.images(z[None], labels)``."""

    z: Tensor
    label: int
    image: Tensor
    """Image of latent and class, uint8 [3, R, R]."""
    baseline: Tensor
    """The nearest of `samples` random images of the same class, uint8 [3, R, R]."""
    baseline_seed: int
    """Seed of the baseline image."""


def invert(
    generator: LoadedGenerator,
    images: Tensor,
    classes: Sequence[int] | None = None,
    *,
    steps: int = 300,
    restarts: int = 8,
    samples: int = 64,
    pixels_only: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> list[Inversion]:
    """Find a latent and a class for every image.

    ``images`` are uint8 [N, 3, R, R] at the generator's resolution; ``classes`` to search (None: all); ``restarts``
    optimisations per image; ``samples`` random images per class, with the seeds ``seed``, ``seed`` + 1, ...

    The result for an image does not depend on the other images. Raises ConfigError for images of another size and for
    numbers below 1.
    """
    size = generator.config.resolution
    if tuple(images.shape[1:]) != (3, size, size):
        raise ConfigError(f"the images are {list(images.shape[1:])}; this generator draws [3, {size}, {size}]")
    for name, value in (("steps", steps), ("restarts", restarts), ("samples", samples)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be 1 or more")
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be 0 or more")
    labels = list(range(generator.num_classes)) if classes is None else list(dict.fromkeys(classes))
    inverter = _Inverter(generator, labels, steps, restarts, samples, pixels_only, seed)
    threads = core_count() if generator.device.type == "cpu" else 1
    with using_tf32(generator.tf32), ProgressBar(len(images), "invert", disable=not progress) as bar:

        def work(image: Tensor) -> Inversion:
            found = inverter(image)
            bar.update()
            return found

        return map_on_cores(threads, work, images.split(1))


@dataclass
class _Inverter:
    """Hold what all images share: random samples to start from, the distance, and the settings."""

    generator: LoadedGenerator
    classes: list[int]
    steps: int
    restarts: int
    samples: int
    pixels_only: bool
    seed: int

    def __post_init__(self) -> None:
        self.parameter = next(self.generator.network.parameters())
        network = None if self.pixels_only else EfficientNetLite0Extractor("inversion", ["1280"]).to(self.parameter)
        self.distance = ImageDistance(network)
        size = self.generator.config.generator.latent_dim
        self.radii = (float(chi.ppf(0.005, size)), float(chi.ppf(0.995, size)))
        self.search = self._search()

    def _search(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw random samples: z [n, latent_dim], labels [n] and uint8 images [n, 3, R, R]."""
        each = max(1, min(self.samples, SEARCHED // len(self.classes)))
        z = self._latents(each).repeat(len(self.classes), 1)
        labels = torch.tensor(self.classes).repeat_interleave(each)
        images = torch.cat([self.generator.images(*part) for part in zip(z.split(256), labels.split(256), strict=True)])
        return z.to(self.parameter), labels.to(self.parameter.device), images

    def __call__(self, image: Tensor) -> Inversion:
        """Invert one image, uint8 [1, 3, R, R]."""
        target = _from_uint8(image.to(self.parameter.device), self.parameter)
        with torch.no_grad():
            activations = self.distance.activations(target)
            z, labels = self._starts(target, activations)
        for share, length in ROUNDS:
            kept = math.ceil(share * self.restarts)
            z, labels = z[:kept], labels[:kept]
            z, order = self._descend(z, labels, target, activations, math.ceil(length * self.steps))
            z, labels = z[order], labels[order]
        label = int(labels[0])
        baseline, seed = self._nearest_sample(label, target, activations)
        return Inversion(z[0].cpu(), label, self.generator.images(z[:1], labels[:1])[0].cpu(), baseline, seed)

    def _latents(self, count: int) -> Tensor:
        size = self.generator.config.generator.latent_dim
        return torch.stack([truncated_latent(self.seed + index, size) for index in range(count)])

    def _starts(self, target: Tensor, activations: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the nearest random samples, nearest first; no class has more than half if there are several."""
        z, labels, images = self.search
        order = self._rank(images, target, activations)
        most = self.restarts if len(self.classes) == 1 else math.ceil(self.restarts / 2)
        taken: dict[int, int] = {}
        chosen: list[int] = []
        for index, label in zip(order.tolist(), labels[order].tolist(), strict=True):
            if len(chosen) < self.restarts and taken.get(label, 0) < most:
                taken[label] = taken.get(label, 0) + 1
                chosen.append(index)
        return z[chosen], labels[chosen]

    def _rank(self, images: Tensor, target: Tensor, activations: list[Tensor]) -> Tensor:
        """Return the indices of uint8 images [n, 3, R, R], nearest first."""
        by_pixels = torch.cat(
            [(_from_uint8(part, target) - target).square().mean((1, 2, 3)) for part in images.split(256)]
        )
        order = by_pixels.argsort(stable=True)
        first = order[:RANKED]
        parts = [self.distance(_from_uint8(images[part], target), target, activations) for part in first.split(16)]
        return torch.cat([first[torch.cat(parts).argsort(stable=True)], order[RANKED:]])

    def _descend(
        self, z: Tensor, labels: Tensor, target: Tensor, activations: list[Tensor], steps: int
    ) -> tuple[Tensor, Tensor]:
        """Optimise z [r, latent_dim] with Adam; returns the best z of each start, and their order, best first."""
        z = z.detach().clone().requires_grad_()
        optimiser = torch.optim.Adam([z], lr=LEARNING_RATE)
        best, lowest = z.detach().clone(), torch.full((len(z),), torch.inf, dtype=z.dtype, device=z.device)
        for step in range(steps + 1):
            distances = self.distance(self.generator.network(z, labels), target, activations)
            with torch.no_grad():
                better = distances < lowest
                lowest = torch.where(better, distances, lowest)
                best = torch.where(better[:, None], z, best)
            if step < steps:
                # Constant, then linearly to zero: the last steps settle into the minimum.
                optimiser.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, 2 * (1 - step / steps))
                distances.sum().backward(inputs=[z])
                optimiser.step()
                optimiser.zero_grad()
                self._onto_shell(z)
        return best, lowest.argsort(stable=True)

    @torch.no_grad()
    def _onto_shell(self, z: Tensor) -> None:
        """Project z, in place, to the range of norms that holds 99 % of N(0, I), as G was trained on no others."""
        radius = z.norm(dim=1, keepdim=True)
        z.mul_(radius.clamp(*self.radii) / radius.clamp_min(1e-12))

    @torch.no_grad()
    def _nearest_sample(self, label: int, target: Tensor, activations: list[Tensor]) -> tuple[Tensor, int]:
        images = self.generator.images(self._latents(self.samples), torch.full((self.samples,), label))
        index = int(self._rank(images, target, activations)[0])
        return images[index].cpu(), self.seed + index


def _from_uint8(images: Tensor, like: Tensor) -> Tensor:
    return images.to(like.dtype).div(127.5).sub(1.0)
