"""Draw images for seeds and classes from a loaded generator."""

import copy
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hamgan.checkpoint import largest_first
from hamgan.config import BatchNormStatistics, Config
from hamgan.distributed.cores import core_count, map_on_cores
from hamgan.errors import ConfigError
from hamgan.files import JsonObject
from hamgan.hamburger.precision import using_tf32
from hamgan.networks import Generator, count_parameters
from hamgan.networks.generator import standing_statistics
from hamgan.networks.inference import InferenceGenerator, chunk_size
from hamgan.sampling.classes import find_class, readable_names
from hamgan.sampling.latents import check_seeds, check_truncation, truncated_latent
from hamgan.sampling.sheets import to_pil

STANDING_BATCHES = 16


def to_uint8(images: Tensor) -> Tensor:
    """Convert images [B, 3, H, W] in [-1, 1] to uint8 in 0..255, rounded exactly as when saved."""
    return images.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


class LoadedGenerator:
    """Draw images from a network in evaluation mode, whose spectral norm is folded into its weights.

    ``network`` is the folded `Generator`, which supports gradients; images are drawn by its faster `inference` form.
    ``evaluations`` are rows of results.jsonl about these weights, with their ``protocol``, the one with most samples
    first; ``header`` has the other entries of the file. ``is_average`` and ``batch_norm`` say which weights and
    batch-norm statistics these are; by default those of the average of G, if one is kept.

    Example:
        >>> generator = load_generator(run)
        >>> generator
        <LoadedGenerator hamgan: 32x32, 12 classes, 6,164 parameters, average of G at 0.016 kimg, cpu>
        >>> image, = generator(seeds=[7], classes=["coffee"])
        >>> image.size
        (32, 32)
        >>> generator(seeds=range(3), classes=[0, 3, "cat"], truncation=0.7, output="tensor").shape
        torch.Size([3, 3, 32, 32])
    """

    def __init__(
        self,
        network: Generator,
        config: Config,
        *,
        class_names: list[str] | None = None,
        kimg: float | None = None,
        source: str = "",
        header: JsonObject | None = None,
        evaluations: list[JsonObject] | None = None,
        is_average: bool | None = None,
        batch_norm: BatchNormStatistics | None = None,
    ) -> None:
        self.network, self.config = network, config
        self.class_names, self.kimg, self.source, self.header = class_names, kimg, source, header or {}
        self.evaluations = largest_first(evaluations or [])
        self.is_average = bool(config.train.ema_decay) if is_average is None else is_average
        self.batch_norm: BatchNormStatistics = batch_norm or ("ema" if self.is_average else "running")
        self.tf32 = False
        """Whether to draw in TF32 on NVIDIA GPUs; evaluations may set it."""

    def __repr__(self) -> str:
        size, weights = self.config.resolution, "average of G" if self.is_average else "G"
        facts = [f"{size}x{size}", f"{self.num_classes} classes", f"{count_parameters(self.network):,} parameters"]
        facts += [weights if self.kimg is None else f"{weights} at {self.kimg:g} kimg", str(self.device)]
        return f"<{type(self).__name__} {self.config.name}: {', '.join(facts)}>"

    @cached_property
    def inference(self) -> InferenceGenerator:
        """Return the faster form of ``network`` that draws images, made at first use."""
        return InferenceGenerator(self.network)

    @property
    def num_classes(self) -> int:
        """Return the number of classes."""
        return self.network.num_classes

    @property
    def device(self) -> torch.device:
        """Return the device that draws images."""
        return next(self.network.parameters()).device

    @property
    def precision(self) -> str:
        """Return the precision in which images are drawn: fp32, tf32, bf16, fp16 or fp64."""
        dtype = next(self.network.parameters()).dtype
        if dtype == torch.float32:
            return "tf32" if self.tf32 and self.device.type == "cuda" else "fp32"
        return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "fp64")

    @property
    def titles(self) -> list[str]:
        """Return a readable name per class: its own, ImageNet's for synsets, else its index.

        Classes with the same name, such as ImageNet's two cranes, have their indices appended.
        """
        names = readable_names(self.class_names, self.num_classes) or list(map(str, range(self.num_classes)))
        counts = Counter(names)
        return [f"{name} (index {index})" if counts[name] > 1 else name for index, name in enumerate(names)]

    def class_index(self, name: int | str) -> int:
        """Return the index of a class by index, name, part of a name, or synset; ConfigError names the nearest."""
        return find_class(name, self.class_names, self.num_classes)

    def images(self, z: Tensor, labels: Tensor) -> Tensor:
        """Draw uint8 images [B, 3, H, W] on the generator's device.

        Shapes: z [B, latent_dim]; labels [B] (int64), or weights [B, classes] that blend classes. On a CPU every core
        draws separate chunks, and an image has the same bits for any batch and number of cores.
        """
        with torch.no_grad(), using_tf32(self.tf32):
            return self._draw(z, labels)

    def _draw(self, z: Tensor, labels: Tensor) -> Tensor:
        parameter = next(self.network.parameters())
        z, labels = z.to(parameter), labels.to(parameter.device)
        if parameter.device.type != "cpu":
            return to_uint8(self.inference(z, labels))
        # The choice of kernels, and so the rounding, depends on the batch size: all chunks have the same size.
        chunk, threads, inference = chunk_size(self.network), core_count(), self.inference
        count, missing = len(z), -len(z) % chunk
        z, labels = (F.pad(rows, (0, 0) * (rows.dim() - 1) + (0, missing)) for rows in (z, labels))
        chunks = zip(z.split(chunk), labels.split(chunk), strict=True)
        parts = map_on_cores(threads, lambda part: to_uint8(inference(*part)), chunks)
        size = self.config.resolution
        return torch.cat(parts)[:count] if count else torch.empty(0, 3, size, size, dtype=torch.uint8)

    def __call__(
        self,
        seeds: int | Sequence[int],
        classes: int | str | Sequence[int | str],
        truncation: float = 1.0,
        output: Literal["pil", "tensor"] = "pil",
        batch_size: int = 64,
    ) -> Any:
        """Draw one image per pair of seed and class; a single class is used for all seeds.

        Returns a list of PIL images, or with ``output="tensor"`` uint8 [B, 3, H, W] on the CPU. Image i depends only
        on seed i and class i, not on the batch size. Raises ConfigError for a value that is not allowed.
        """
        check_truncation(truncation)
        if output not in ("pil", "tensor"):
            raise ConfigError(f"output is {output!r}; allowed: pil, tensor")
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; it must be 1 or more")
        seeds = check_seeds([seeds] if isinstance(seeds, (int, np.integer)) else seeds)
        names = [classes] if isinstance(classes, (int, np.integer, str)) else classes
        labels = [self.class_index(name) for name in names]
        labels = labels * len(seeds) if len(labels) == 1 else labels
        if len(labels) != len(seeds):
            raise ConfigError(f"{len(seeds)} seeds and {len(labels)} classes; give as many of both, or one class")
        size, resolution = self.config.generator.latent_dim, self.config.resolution
        parts = [torch.empty(0, 3, resolution, resolution, dtype=torch.uint8)]
        for start in range(0, len(seeds), batch_size):
            z = torch.stack([truncated_latent(seed, size, truncation) for seed in seeds[start : start + batch_size]])
            parts.append(self.images(z, torch.tensor(labels[start : start + batch_size])).cpu())
        images = torch.cat(parts)
        return images if output == "tensor" else to_pil(images)

    def with_standing_statistics(self, batch_size: int = 64, seed: int = 0) -> "LoadedGenerator":
        """Return a copy with batch-norm statistics averaged over 16 fresh batches (Brock et al. 2019, appendix B)."""
        clone = copy.copy(self)
        clone.__dict__.pop("inference", None)
        clone.network = copy.deepcopy(self.network)
        random = torch.Generator().manual_seed(seed)
        batches = []
        for _ in range(STANDING_BATCHES):
            z = torch.randn(batch_size, clone.config.generator.latent_dim, generator=random)
            labels = torch.randint(clone.num_classes, (batch_size,), generator=random)
            batches.append((z.to(next(clone.network.parameters())), labels.to(clone.device)))
        with torch.random.fork_rng(), using_tf32(self.tf32):
            torch.manual_seed(seed)  # Hamburgers draw their bases in training mode
            standing_statistics(clone.network, batches)
        clone.batch_norm, clone.evaluations = "standing", []  # the evaluations are of other images
        return clone


def default_device() -> str:
    """Return the name of a GPU if there is one, else of the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def find_device(name: str | torch.device | None) -> torch.device:
    """Return the device with a name, or `default_device` for None; ConfigError if it cannot be used."""
    try:
        return torch.empty(0, device=name or default_device()).device
    except (RuntimeError, AssertionError) as error:  # an unknown name, or a torch that was built without it
        raise ConfigError(f"device {name} cannot be used: {str(error).splitlines()[0]}") from error
