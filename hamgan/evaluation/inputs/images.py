"""Read images from folders, arrays and data sets, all as indexed uint8 batches."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hamgan.data import ImageSource
from hamgan.data.decoding.decode import decode_picture
from hamgan.data.decoding.kinds import describe_left_out
from hamgan.data.finding.locations import download_folder
from hamgan.data.finding.picture import Picture
from hamgan.data.finding.reading import hash_bytes, read_bytes
from hamgan.data.finding.source_files import list_members
from hamgan.data.pictures import PictureSource
from hamgan.errors import ConfigError, DataError, one_line
from hamgan.evaluation.metrics.fid import SHUFFLE_SEED
from hamgan.files import JsonObject

IMAGE_ARRAYS = (("arr_0", "arr_1"), ("x", "y"))
"""Names of images and labels in an ``.npz``: of ADM, of BigGAN-PyTorch."""


def hash_rows(rows: Iterable[tuple[object, ...]]) -> str:
    """Hash rows of plain values, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(tuple(map(str, row))).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


class Images(ABC):
    """Represent a fixed, indexed set of uint8 images of one size."""

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
    def describe(self) -> JsonObject:
        """Return plain values that identify the images, including ``source``."""

    def hash_content(self) -> str:
        """Return a hash of the content, position and class of every picture."""
        raise NotImplementedError(f"{type(self).__name__} is no reference")  # a generator's

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height in pixels."""
        height, width = self.read([0]).shape[-2:]
        return width, height


class FolderImages(Images):
    """Read all pictures below a folder or in an archive in the order of their names.

    Labels are the first-level folders if every picture is in one. Pictures are found and decoded as in training, but
    not resized: all must have the size of the first one. For a flat folder torch-fidelity uses the same order.
    """

    kind = "folder"

    def __init__(self, source: Path, split: str | None = None) -> None:
        self.source, self.split = source, split
        members, unread = list_members(str(source), download_folder() / "unpacked")
        self.members = sorted(members, key=lambda member: member.name)
        self.left_out = describe_left_out(0, unread)
        if not self.members:
            raise ConfigError(f"{source} holds no pictures{f' but {self.left_out}' if unread else ''}")
        if all("/" in member.name for member in self.members):
            parents = [member.name.partition("/")[0] for member in self.members]
            self.class_names = sorted(set(parents))
            index_of = {name: index for index, name in enumerate(self.class_names)}
            self.labels = torch.tensor([index_of[name] for name in parents])
        self.shape = self._decode(0).shape
        self.pool = ThreadPoolExecutor(4)

    def __len__(self) -> int:
        return len(self.members)

    def read(self, indices: Sequence[int]) -> Tensor:
        return torch.stack(list(self.pool.map(self._read_one, indices)))

    def _decode(self, index: int) -> Tensor:
        member = self.members[index]
        try:
            pixels = decode_picture(read_bytes(Picture(member.name, 0, member.place)))
        except (DataError, OSError) as error:
            raise ConfigError(f"{self.source / member.name} {error}") from error
        return torch.tensor(pixels).permute(2, 0, 1)

    def _read_one(self, index: int) -> Tensor:
        image = self._decode(index)
        if image.shape != self.shape:
            raise ConfigError(
                f"{self.source / self.members[index].name} is {image.shape[2]}x{image.shape[1]} pixels, "
                f"{self.members[0].name} {self.shape[2]}x{self.shape[1]}: all images must have one size; prepare them "
                "by `hamgan prepare`"
            )
        return image

    def hash_content(self) -> str:
        pictures = [Picture(member.name, 0, member.place) for member in self.members]
        return hash_rows(zip(self.members, self.pool.map(hash_bytes, pictures), strict=True))

    def describe(self) -> JsonObject:
        described = {"source": str(self.source), "split": self.split, "preparation": "none, read as they are"}
        return described | ({"left_out": self.left_out} if self.left_out else {})


class ArrayImages(Images):
    """Read an ``.npz`` of uint8 images: ADM's ``arr_0`` [N, H, W, 3] with optional labels ``arr_1``.

    Also reads BigGAN-PyTorch's ``x`` [N, 3, H, W] with labels ``y``.
    """

    kind = "array"

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            with np.load(file) as archive:
                images, labels = next((pair for pair in IMAGE_ARRAYS if pair[0] in archive), IMAGE_ARRAYS[0])
                arrays = {name: np.asarray(archive[name]) for name in (images, labels) if name in archive}
        except Exception as error:  # NumPy and zipfile raise nearly anything for damaged bytes
            raise ConfigError(f"{file} cannot be read as an .npz file: {one_line(error)}") from error
        pixels = arrays.get(images)
        if pixels is not None and images == "x" and pixels.ndim == 4:
            pixels = pixels.transpose(0, 2, 3, 1)
        if pixels is None or pixels.ndim != 4 or pixels.shape[3] != 3 or len(pixels) == 0:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
            raise ConfigError(f"{file} must hold arr_0 [N, H, W, 3]; it has {shapes or 'no such array'}")
        if pixels.dtype != np.uint8:
            problem = "it has NaN or infinite values" if not np.isfinite(pixels).all() else "save rounded 0 to 255"
            raise ConfigError(f"{file}: {images} is {pixels.dtype}, not uint8; {problem}")
        self.pixels = torch.from_numpy(pixels)
        if labels in arrays and arrays[labels].shape == (len(pixels),):
            self.labels = torch.from_numpy(arrays[labels].astype(np.int64))

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: Sequence[int]) -> Tensor:
        return self.pixels[torch.as_tensor(indices)].permute(0, 3, 1, 2)

    def hash_content(self) -> str:
        labels = b"" if self.labels is None else self.labels.numpy().tobytes()
        return hashlib.sha256(self.pixels.contiguous().numpy().tobytes() + labels).hexdigest()

    def describe(self) -> JsonObject:
        return {"source": str(self.file), "preparation": "none, read as they are"}


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
        # Hashes of stores and of the photographs cover every pixel; those of picture folders only names and sizes.
        if isinstance(self.source, PictureSource):
            return self.source.hash_content()
        return str(self.source.describe()["sha256"])

    def describe(self) -> JsonObject:
        described = dict(self.source.describe())
        made = [f"{key} {described[key]}" for key in ("crop", "filter", "profiles") if described.get(key)]
        if described.get("background", [255, 255, 255]) != [255, 255, 255]:
            made.append(f"background {described['background']}")
        return {**described, "source": self.name, "split": self.split, "preparation": ", ".join(made) or None}


class Subset(Images):
    """Read a fixed random draw of ``count`` images of a larger set, since sets are often sorted by class."""

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

    def describe(self) -> JsonObject:
        return {**self.images.describe(), "subset": f"{len(self):,} of {len(self.images):,} at random"}
