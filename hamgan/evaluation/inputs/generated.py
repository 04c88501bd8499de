"""Present the images of a generator as an indexed set."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hamgan.errors import ConfigError
from hamgan.evaluation.inputs.images import Images
from hamgan.evaluation.protocol import LabelDistribution
from hamgan.files import JsonObject
from hamgan.sampling import LoadedGenerator, truncated_latent
from hamgan.sampling.latents import SEEDS, check_truncation

SampleGenerator = Callable[..., Any]
"""A `LoadedGenerator`, or a callable with its signature that has ``num_classes`` or ``class_names``."""


class GeneratedImages(Images):
    """Draw images for consecutive seeds: image i of ``num_samples`` has seed ``seed * num_samples + i``.

    Labels are functions of the seed: ``uniform`` draws them independently, ``balanced`` cycles through the classes,
    ``training`` draws them with the frequencies ``class_counts``.
    """

    kind = "generator"

    def __init__(
        self,
        generator: SampleGenerator,
        num_samples: int,
        *,
        seed: int = 0,
        truncation: float = 1.0,
        labels: LabelDistribution = "uniform",
        class_counts: Tensor | None = None,
    ) -> None:
        if not 0 <= (seed + 1) * num_samples <= SEEDS or seed < 0:
            raise ConfigError(f"seed is {seed}; with {num_samples} samples it must be 0 to {SEEDS // num_samples - 1}")
        check_truncation(truncation)
        self.generator, self.num_samples = generator, num_samples
        self.seed, self.truncation, self.distribution = seed, truncation, labels
        names = getattr(generator, "class_names", None)
        self.class_names = list(names) if names is not None else None
        count = getattr(generator, "num_classes", None) or len(self.class_names or [0])
        self.drawn_labels = draw_labels(labels, num_samples, int(count), seed, class_counts)
        self.labels = self.drawn_labels

    def __len__(self) -> int:
        return self.num_samples

    @contextmanager
    def refuse_nan(self) -> Iterator[None]:
        """Raise ConfigError at the end of the context if the network returned NaN or infinite values inside it."""
        generator = self.generator
        network = generator.inference if isinstance(generator, LoadedGenerator) else getattr(generator, "network", None)
        finite: list[Tensor] = []

        def record(_module: torch.nn.Module, _inputs: object, images: Tensor) -> None:
            # uint8 hides NaN (it becomes 0), so the network's own output is checked, without waiting for the device.
            finite.append(torch.isfinite(images).all())

        hook = network.register_forward_hook(record) if isinstance(network, torch.nn.Module) else None
        try:
            yield
        finally:
            if hook:
                hook.remove()
        if finite and not bool(torch.stack(finite).all()):
            raise ConfigError("the generator's images have NaN or infinite values; there is nothing to measure")

    def read(self, indices: Sequence[int]) -> Tensor:
        """Return the images with these indices, uint8 [B, 3, H, W], rounded exactly like saved PNGs."""
        seeds = [self.seed * self.num_samples + index for index in indices]
        classes = self.drawn_labels[torch.as_tensor(indices)]
        if isinstance(self.generator, LoadedGenerator):
            # The same images, left on the generator's device: the extractor is there too.
            size = self.generator.config.generator.latent_dim
            z = torch.stack([truncated_latent(seed, size, self.truncation) for seed in seeds])
            return self.generator.images(z, classes)
        found = self.generator(seeds=seeds, classes=classes.tolist(), truncation=self.truncation, output="tensor")
        images: Tensor = found
        if images.dtype != torch.uint8:
            raise ConfigError(f"the generator returned {images.dtype}; images must be uint8 [B, 3, H, W]")
        return images

    def describe(self) -> JsonObject:
        """Return the checkpoint, its position and how it is sampled."""
        return {
            "source": str(getattr(self.generator, "source", "") or type(self.generator).__name__),
            "kimg": getattr(self.generator, "kimg", None),
            "ema": getattr(self.generator, "is_average", None),
            "batch_norm": getattr(self.generator, "batch_norm", None),
            "seed": self.seed,
            "truncation": self.truncation,
            "labels": self.distribution,
            "sample_precision": getattr(self.generator, "precision", None),
            "selected": config.data.selected if (config := getattr(self.generator, "config", None)) else None,
        }


def draw_labels(
    distribution: LabelDistribution, count: int, classes: int, seed: int, class_counts: Tensor | None = None
) -> Tensor:
    """Draw ``count`` class indices, int64, as a function of the seed.

    Raises ConfigError for ``training`` without the histogram of the classes.
    """
    if distribution == "balanced":
        return torch.arange(count) % classes
    shares = None
    if distribution == "training":
        if class_counts is None or len(class_counts) != classes:
            raise ConfigError(
                f"labels: training needs a reference with the histogram of the generator's {classes} classes"
            )
        shares = class_counts.double().numpy() / float(class_counts.sum())
    return torch.from_numpy(np.random.default_rng([seed, count]).choice(classes, count, p=shares))
