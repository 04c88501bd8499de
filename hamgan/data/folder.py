"""Images straight from a folder of class folders, decoded on every read."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hamgan.data.decode import PictureError, Preparation, decode
from hamgan.data.sources import DataError

log = logging.getLogger(__name__)

EXTENSIONS = {
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".apng",
    ".webp",
    ".bmp",
    ".dib",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
}
EXTENSIONS |= {".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".ico", ".tga"}
SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test")}


def is_image_name(name: str) -> bool:
    """Whether a file's name ends like a picture's, in any case, and is not hidden."""
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in EXTENSIONS


def _walk(folder: str, inside: str, parents: frozenset[str]) -> Iterator[tuple[str, int]]:
    """(relative path with /, bytes) of every picture below a folder; follows symbolic links, but not in circles."""
    real = os.path.realpath(folder)
    if real in parents:
        return
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            relative = f"{inside}{entry.name}"
            if entry.is_dir():
                yield from _walk(entry.path, f"{relative}/", parents | {real})
            elif is_image_name(entry.name) and entry.is_file():
                yield relative, entry.stat().st_size


def walk_pictures(folder: Path) -> list[tuple[str, int]]:
    """(path relative to `folder` with /, bytes) of every picture below it, sorted; links are followed."""
    try:
        return sorted(_walk(str(folder), "", frozenset()))
    except OSError as error:
        raise DataError(f"cannot list {error.filename or folder}: {error.strerror}") from error


def split_names(below: Iterable[str]) -> dict[str, str]:
    """Which of these folder names is which split, if one of them is ``train`` in any case; else none is."""
    lower = {name.lower(): name for name in sorted(below)}
    found = {
        split: next((lower[name] for name in names if name in lower), None) for split, names in SPLIT_FOLDERS.items()
    }
    return {split: name for split, name in found.items() if name} if found["train"] else {}


def split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split: ``train/`` and ``val/`` (or ``test/``, ...) in any case, else the root as train."""
    names = split_names(entry.name for entry in root.iterdir() if entry.is_dir())
    return {split: root / name for split, name in names.items()} or {"train": root}


def class_folders(folder: Path) -> list[str]:
    """Names of the folders directly below, sorted as torchvision's ImageFolder does; each is a class."""
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and entry.name != "__MACOSX"
    )


class FolderSource:
    """A folder of class folders; a picture that cannot be decoded gives its place to the next one of its class.

    Decoding happens on every read, some 500 images/s per core: prepare a store for anything but a first look.
    """

    def __init__(self, root: Path, split: str, resolution: int, threads: int | None = None) -> None:
        folders = split_folders(root)
        if split not in folders:
            looked = "/, ".join(SPLIT_FOLDERS[split])
            raise DataError(f"{root} has no split `{split}` (looked for {looked}/ beside train/)")
        self._folder = folders[split]
        self.name, self.split, self.resolution = str(root), split, resolution
        self.class_names = class_folders(folders["train"])
        if not self.class_names:
            raise DataError(
                f"{folders['train']} holds no class folders; put each class's pictures in a folder of its own"
            )
        if unknown := sorted(set(class_folders(self._folder)) - set(self.class_names)):
            raise DataError(
                f"{self._folder} has the class folder `{unknown[0]}`, which {folders['train']} does not have"
            )
        self._how = Preparation(resolution)
        files, labels, digest = [], [], hashlib.sha256()
        for label, class_name in enumerate(self.class_names):
            below = self._folder / class_name
            listed = [(f"{class_name}/{path}", size) for path, size in walk_pictures(below)] if below.is_dir() else []
            files += [path for path, _ in listed]
            labels += [label] * len(listed)
            digest.update("".join(f"{path}\0{size}\n" for path, size in listed).encode("utf-8", "surrogateescape"))
        self._files = files
        self.labels = np.asarray(labels, np.int64)
        self._sha256 = digest.hexdigest()
        self._pool = ThreadPoolExecutor(threads or min(16, os.cpu_count() or 1), "decode")
        self._unusable: set[int] = set()

    def __len__(self) -> int:
        return len(self.labels)

    def _read_one(self, index: int) -> np.ndarray:
        try:
            return self._decode(index)
        except PictureError:
            members = np.flatnonzero(self.labels == self.labels[index])
            for candidate in np.roll(members, -1 - int(np.searchsorted(members, index))).tolist():
                with contextlib.suppress(PictureError):
                    return self._decode(candidate)
        name = self.class_names[self.labels[index]]
        raise DataError(f"no picture of class `{name}` in {self._folder} can be decoded")

    def _decode(self, index: int) -> np.ndarray:
        path = self._folder / self._files[index]
        try:
            return decode(path.read_bytes(), self._how)
        except (PictureError, OSError) as error:
            if index not in self._unusable:
                self._unusable.add(index)
                log.warning("%s %s; the next picture of its class stands in", path, error)
            raise PictureError(str(error)) from error

    def read(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Images uint8 [B, H, W, 3]: centre crops, decoded by several threads."""
        if out is None:
            out = np.empty((len(indices), self.resolution, self.resolution, 3), np.uint8)
        for row, image in enumerate(self._pool.map(self._read_one, indices.tolist())):
            out[row] = image
        return out

    def describe(self) -> dict[str, Any]:
        """The protocol; the hash covers names and sizes of the files, not their pixels."""
        return {
            "source": self.name,
            "split": self.split,
            "count": len(self),
            "classes": len(self.class_names),
            "crop": self._how.crop,
            "filter": self._how.filter,
            "resolution": self.resolution,
            "sha256": self._sha256,
        }
