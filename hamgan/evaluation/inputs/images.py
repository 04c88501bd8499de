"""Read images from folders, arrays and data sets, all as indexed uint8 batches."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hamgan.data import ImageSource
from hamgan.data.finding.folders import walk_files
from hamgan.data.pictures import PictureSource
from hamgan.errors import ConfigError, one_line
from hamgan.evaluation.metrics.fid import SHUFFLE_SEED
from hamgan.files import sha256

EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}


def hash_rows(rows: Iterable[tuple[object, ...]]) -> str:
    """Hash rows of plain values, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(tuple(map(str, row))).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


class Images(ABC):
    """Give a fixed, indexed set of uint8 images of one size."""

    kind: str
    """generator, folder, array or dataset."""
    labels: Tensor | None = None
    """Class indices, int64 [N]."""
    class_names: list[str] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, indices: Sequence[int]) -> Tensor:
        """Return the images with these indices, uint8 [B, 3, H, W]; raises ConfigError for one that cannot be used."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return plain values that say which images these are; ``source`` among them."""

    def hash_content(self) -> str:
        """Return a hash of every picture's content, its place and its class."""
        raise NotImplementedError(f"{type(self).__name__} is no reference")

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height in pixels."""
        height, width = self.read([0]).shape[-2:]
        return width, height


class FolderImages(Images):
    """Read all images below a folder in the order of their paths; labels are the first-level folders, if there are any.

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
        if all(file.parent != folder for file in self.files):
            parents = [file.relative_to(folder).parts[0] for file in self.files]
            self.class_names = sorted(set(parents))
            index_of = {name: index for index, name in enumerate(self.class_names)}
            self.labels = torch.tensor([index_of[name] for name in parents])
        self.shape = _read_image(self.files[0]).shape
        self.pool = ThreadPoolExecutor(4)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: Sequence[int]) -> Tensor:
        return torch.stack(list(self.pool.map(self._read_one, indices)))

    def _read_one(self, index: int) -> Tensor:
        image = _read_image(self.files[index])
        if image.shape != self.shape:
            raise ConfigError(
                f"{self.files[index]} is {image.shape[2]}x{image.shape[1]} pixels, {self.files[0].name} "
                f"{self.shape[2]}x{self.shape[1]}: all images must have one size; prepare them by `hamgan prepare`"
            )
        return image

    def hash_content(self) -> str:
        digests = self.pool.map(sha256, self.files)
        names = [file.relative_to(self.folder) for file in self.files]
        return hash_rows(zip(names, digests, strict=True))

    def describe(self) -> dict[str, Any]:
        return {"source": str(self.folder), "split": self.split, "preparation": "none, read as they are"}


def _read_image(file: Path) -> Tensor:
    try:
        with Image.open(file) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{file} cannot be read as an image: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


class ArrayImages(Images):
    """Read an ``.npz`` in ADM's style: ``arr_0`` uint8 [N, H, W, 3], labels in ``arr_1`` where present."""

    kind = "array"

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            with np.load(file) as archive:
                arrays = {name: np.asarray(archive[name]) for name in ("arr_0", "arr_1") if name in archive}
        except Exception as error:  # NumPy and zipfile raise nearly anything for damaged bytes
            raise ConfigError(f"{file} cannot be read as an .npz file: {one_line(error)}") from error
        pixels, labels = arrays.get("arr_0"), arrays.get("arr_1")
        if pixels is None or pixels.ndim != 4 or pixels.shape[3] != 3 or len(pixels) == 0:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
            raise ConfigError(f"{file} must hold arr_0 [N, H, W, 3]; it has {shapes or 'no such array'}")
        if pixels.dtype != np.uint8:
            problem = "it has NaN or infinite values" if not np.isfinite(pixels).all() else "save rounded 0 to 255"
            raise ConfigError(f"{file}: arr_0 is {pixels.dtype}, not uint8; {problem}")
        self.pixels = torch.from_numpy(pixels)
        if labels is not None and labels.ndim == 1:
            self.labels = torch.from_numpy(labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: Sequence[int]) -> Tensor:
        return self.pixels[torch.as_tensor(indices)].permute(0, 3, 1, 2)

    def describe(self) -> dict[str, Any]:
        return {"source": str(self.file)}


class SourceImages(Images):
    """Read a split of one of `hamgan.data`'s sources: the photographs, a prepared store, CIFAR, class folders."""

    kind = "dataset"

    def __init__(self, source: ImageSource, name: str, split: str | None) -> None:
        self.source, self.name, self.split = source, name, split
        self.labels = torch.as_tensor(np.asarray(source.labels)).long()
        self.class_names = list(source.class_names)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Sequence[int]) -> Tensor:
        return torch.as_tensor(self.source.read(np.asarray(indices))).permute(0, 3, 1, 2)

    def hash_content(self) -> str:
        # Hashes of stores and of the photographs cover every pixel; those of pictures names and sizes alone.
        if isinstance(self.source, PictureSource):
            return self.source.hash_content()
        return str(self.source.describe()["sha256"])

    def describe(self) -> dict[str, Any]:
        described = dict(self.source.describe())
        made = [f"{key} {described[key]}" for key in ("crop", "filter") if described.get(key)]
        return {**described, "source": self.name, "split": self.split, "preparation": ", ".join(made) or None}


class Subset(Images):
    """Read ``count`` images of a larger set, drawn at random once and for all: sets are often sorted by class."""

    def __init__(self, images: Images, count: int) -> None:
        self.images, self.kind, self.class_names = images, images.kind, images.class_names
        order = np.random.RandomState(SHUFFLE_SEED).permutation(len(images))
        self.indices = torch.from_numpy(np.sort(order[:count]))
        self.labels = images.labels[self.indices] if images.labels is not None else None

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: Sequence[int]) -> Tensor:
        return self.images.read(self.indices[torch.as_tensor(indices)].tolist())

    def hash_content(self) -> str:
        return hash_rows([(self.images.hash_content(), self.indices.tolist())])

    def describe(self) -> dict[str, Any]:
        return {**self.images.describe(), "subset": f"{len(self):,} of {len(self.images):,} at random"}
