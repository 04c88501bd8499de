"""Where the images of an evaluation come from: generators, folders, arrays, data sets, all as indexed uint8 batches."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hamgan.data.finding.folders import walk_files
from hamgan.errors import ConfigError, one_line
from hamgan.sampling import LoadedGenerator, truncated_latent

EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}
LabelDistribution = Literal["uniform", "balanced", "training"]
MAX_SEED = 2**32
"""torch's CPU generator keeps the low 32 bits of a seed; beyond that samples would repeat."""


class Images(Protocol):
    """A fixed, indexed set of uint8 images with one size."""

    @property
    def kind(self) -> str:
        """generator, folder, array or dataset."""
        ...

    @property
    def labels(self) -> Tensor | None:
        """Class indices, int64 [N]."""
        ...

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes."""
        ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Tensor:
        """uint8 [B, 3, H, W] of the images with these indices."""
        ...

    def describe(self) -> dict[str, Any]:
        """Plain values that say which images these are."""
        ...


class FolderImages:
    """All images below a folder in the order of their paths; labels are the first-level folders, where there are any.

    Links are followed, hidden files left out. torch-fidelity takes the same order for a flat folder. Images are read as
    RGB; every image must have the first one's size: an evaluation never resizes on its own account.
    """

    kind = "folder"

    def __init__(self, folder: Path, split: str | None = None) -> None:
        self.folder, self.split = folder, split
        # Not rglob, which passes linked folders over.
        found = [folder / name for name, _ in walk_files(folder)]
        self.files = sorted((file for file in found if file.suffix.lower() in EXTENSIONS), key=str)
        if not self.files:
            raise ConfigError(f"{folder} holds no images ({', '.join(sorted(EXTENSIONS))})")
        parents = [file.relative_to(folder).parts[0] if file.parent != folder else None for file in self.files]
        self.class_names = None if None in parents else sorted({str(name) for name in parents})
        self.labels = None
        if self.class_names is not None:
            index_of = {name: index for index, name in enumerate(self.class_names)}
            self.labels = torch.tensor([index_of[str(name)] for name in parents])
        self.size = _read_image(self.files[0]).shape
        self.pool = ThreadPoolExecutor(4)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: Sequence[int]) -> Tensor:
        """uint8 [B, 3, H, W]; raises ConfigError naming an unreadable file or one of another size."""
        return torch.stack(list(self.pool.map(self._read_one, indices)))

    def _read_one(self, index: int) -> Tensor:
        image = _read_image(self.files[index])
        if image.shape != self.size:
            raise ConfigError(
                f"{self.files[index]} is {image.shape[2]}x{image.shape[1]} pixels, {self.files[0].name} "
                f"{self.size[2]}x{self.size[1]}: all images must have one size; prepare them by scripts/prepare_data.py"
            )
        return image

    def describe(self) -> dict[str, Any]:
        """The folder's name."""
        return {"source": str(self.folder), "split": self.split, "preparation": "none, read as they are"}


def _read_image(file: Path) -> Tensor:
    try:
        with Image.open(file) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{file} cannot be read as an image: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


class ArrayImages:
    """Images of an `.npz` in ADM's style: `arr_0` uint8 [N, H, W, 3], labels in `arr_1` where present."""

    kind = "array"
    class_names = None

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            with np.load(file) as archive:
                arrays = {name: np.asarray(archive[name]) for name in ("arr_0", "arr_1") if name in archive}
        except Exception as error:  # NumPy and zipfile raise nearly anything for damaged bytes
            raise ConfigError(f"{file} cannot be read as an .npz file: {one_line(error)}") from error
        pixels = arrays.get("arr_0")
        if pixels is None or pixels.ndim != 4 or pixels.shape[3] != 3 or len(pixels) == 0:
            raise ConfigError(f"{file} must hold arr_0 [N, H, W, 3]; it has {_shapes(arrays) or 'no such array'}")
        if pixels.dtype != np.uint8:
            problem = "it has NaN or infinite values" if not np.isfinite(pixels).all() else "save rounded 0 to 255"
            raise ConfigError(f"{file}: arr_0 is {pixels.dtype}, not uint8; {problem}")
        self.pixels = torch.from_numpy(pixels)
        labels = arrays.get("arr_1")
        self.labels = torch.from_numpy(labels.astype(np.int64)) if labels is not None and labels.ndim == 1 else None

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: Sequence[int]) -> Tensor:
        """uint8 [B, 3, H, W]."""
        return self.pixels[torch.as_tensor(indices)].permute(0, 3, 1, 2)

    def describe(self) -> dict[str, Any]:
        """The file's name."""
        return {"source": str(self.file)}


def _shapes(arrays: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())


class SourceImages:
    """A split of one of `hamgan.data`'s sources: the photographs, a prepared store, CIFAR, class folders."""

    kind = "dataset"

    def __init__(self, source: Any, name: str, split: str | None) -> None:
        self.source, self.name, self.split = source, name, split
        self.labels = torch.as_tensor(np.asarray(source.labels)).long()
        self.class_names = list(source.class_names) if source.class_names is not None else None

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Sequence[int]) -> Tensor:
        """uint8 [B, 3, H, W]."""
        return torch.as_tensor(self.source.read(np.asarray(indices))).permute(0, 3, 1, 2)

    def describe(self) -> dict[str, Any]:
        """The source's own description."""
        described = dict(self.source.describe())
        made = [f"{key} {described[key]}" for key in ("crop", "filter") if described.get(key)]
        return {**described, "source": self.name, "split": self.split, "preparation": ", ".join(made) or None}


class GeneratedImages:
    """The images of a generator for consecutive seeds: image i of `num_samples` has seed `seed * num_samples + i`.

    `generator` is a LoadedGenerator, or any callable with its signature that has `num_classes` or `class_names`.
    Labels are functions of the seed: `uniform` draws them independently, `balanced` goes through the classes in turn,
    `training` draws from `class_counts`.
    """

    kind = "generator"

    def __init__(
        self,
        generator: Callable[..., Any],
        num_samples: int,
        *,
        seed: int = 0,
        truncation: float = 1.0,
        labels: LabelDistribution = "uniform",
        class_counts: Tensor | None = None,
    ) -> None:
        if not 0 <= (seed + 1) * num_samples <= MAX_SEED or seed < 0:
            raise ConfigError(
                f"seed is {seed}; with {num_samples} samples it must be 0 to {MAX_SEED // num_samples - 1}"
            )
        if truncation <= 0:
            raise ConfigError(f"truncation is {truncation}; it must be above 0 (1 or more: no truncation)")
        self.generator, self.num_samples = generator, num_samples
        self.seed, self.truncation, self.distribution = seed, truncation, labels
        names = getattr(generator, "class_names", None)
        self.class_names = list(names) if names is not None else None
        count = getattr(generator, "num_classes", None) or len(self.class_names or [0])
        self.labels = draw_labels(labels, num_samples, int(count), seed, class_counts)
        self.not_finite: Tensor | None = None
        self._lock = Lock()

    def __len__(self) -> int:
        return self.num_samples

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Raise ConfigError at the end if the network returned NaN or inf on the way."""
        generator = self.generator
        network = generator.inference if isinstance(generator, LoadedGenerator) else getattr(generator, "network", None)
        hook = network.register_forward_hook(self._watch) if isinstance(network, torch.nn.Module) else None
        self.not_finite = None
        try:
            yield
        finally:
            if hook:
                hook.remove()
        if self.not_finite is not None and bool(self.not_finite):
            raise ConfigError("the generator's images have NaN or infinite values; there is nothing to measure")

    def _watch(self, _module: torch.nn.Module, _inputs: Any, images: Tensor) -> None:
        # uint8 hides NaN (it becomes 0), so the network's own output is watched, on its device and without a sync.
        bad = ~torch.isfinite(images).all()
        with self._lock:  # chunks run on several threads
            self.not_finite = bad if self.not_finite is None else self.not_finite | bad

    def read(self, indices: Sequence[int]) -> Tensor:
        """uint8 [B, 3, H, W], rounded exactly as saved PNGs are."""
        assert self.labels is not None
        seeds = [self.seed * self.num_samples + index for index in indices]
        classes = self.labels[torch.as_tensor(indices)].tolist()
        if isinstance(self.generator, LoadedGenerator):
            # The same images, left on the generator's device: the extractor is there too.
            size = self.generator.config.generator.latent_dim
            z = torch.stack([truncated_latent(seed, size, self.truncation) for seed in seeds])
            return self.generator.images(z, torch.tensor(classes))
        images = self.generator(seeds=seeds, classes=classes, truncation=self.truncation, output="tensor")
        if images.dtype != torch.uint8:
            raise ConfigError(f"the generator returned {images.dtype}; uint8 [B, 3, H, W] is what is measured")
        return images

    def describe(self) -> dict[str, Any]:
        """The checkpoint, its position and how it is sampled."""
        return {
            "source": str(getattr(self.generator, "source", "") or type(self.generator).__name__),
            "kimg": getattr(self.generator, "kimg", None),
            "ema": getattr(self.generator, "is_average", None),
            "batch_norm": getattr(self.generator, "batch_norm", None),
            "seed": self.seed,
            "truncation": self.truncation,
            "labels": self.distribution,
        }


def draw_labels(
    distribution: LabelDistribution, count: int, classes: int, seed: int, class_counts: Tensor | None = None
) -> Tensor:
    """`count` class indices, int64, a function of the seed; raises ConfigError for `training` without its histogram."""
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
