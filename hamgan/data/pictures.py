"""Training straight from pictures: folders, tar and zip files, WebDataset shards, CIFAR, the Hugging Face hub."""

import contextlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from hamgan.data.decoding.decode import Preparation, decode
from hamgan.data.finding.folders import SPLIT_FOLDERS
from hamgan.data.finding.listing import list_pictures
from hamgan.data.finding.locations import download_folder
from hamgan.data.finding.picture import Listing
from hamgan.data.finding.reading import read_bytes
from hamgan.errors import DataError

log = logging.getLogger(__name__)

ADVICE = "remove or fill them, or prepare a store, which leaves such classes out"


class PictureSource:
    """Pictures of a source as `list_pictures` finds them, decoded on every read.

    An index of all pictures makes the order as exact as a store's: any picture is one seek away, also in WebDataset
    shards. A picture that cannot be decoded gives its place to the next one of its class. Some 400 images/s per core
    at 500 x 375 pixels, and some 500 bytes of memory per picture and process: prepare a store for anything large.
    """

    def __init__(self, source: str, split: str, resolution: int, threads: int | None = None) -> None:
        listing = list_pictures(source, download_folder() / "unpacked")
        _check_classes(source, listing)
        if not listing.pictures[split]:
            looked = "/, ".join(SPLIT_FOLDERS[split])
            raise DataError(f"{source} has no split `{split}` (looked for {looked}/ beside train/)")
        self.name, self.split, self.resolution = source, split, resolution
        self.class_names = listing.class_names
        self._pictures = listing.pictures[split]
        self._sha256 = Listing(listing.class_names, {split: self._pictures}).sha256()
        self.labels = np.asarray([picture.label for picture in self._pictures], np.int64)
        self._how = Preparation(resolution)
        self._pool = ThreadPoolExecutor(threads or min(16, os.cpu_count() or 1), "decode")
        self._unusable: set[int] = set()
        self._check_every_class()

    def _check_every_class(self) -> None:
        """A class of which nothing can be decoded ends a run before it starts; costs a picture per class."""
        _, first = np.unique(self.labels, return_index=True)
        for _ in self._pool.map(self._decode_or_replace, first.tolist()):
            pass

    def __len__(self) -> int:
        return len(self.labels)

    def _read_one(self, index: int) -> np.ndarray:
        return self._decode_or_replace(index, self._warn_once)

    def _decode_or_replace(self, index: int, told: Callable[[int, Exception], None] | None = None) -> np.ndarray:
        """A picture, or the next one of its class that can be decoded."""
        try:
            return self._decode(index)
        except (DataError, OSError) as error:
            reason = str(error)
            if told:
                told(index, error)
        members = np.flatnonzero(self.labels == self.labels[index])
        for candidate in np.roll(members, -1 - int(np.searchsorted(members, index))).tolist():
            with contextlib.suppress(DataError, OSError):
                return self._decode(candidate)
        raise DataError(
            f"no picture of class `{self.class_names[self.labels[index]]}` in {self.name} can be used "
            f"({self._pictures[index].key} {reason}); {ADVICE}"
        )

    def _decode(self, index: int) -> np.ndarray:
        return decode(read_bytes(self._pictures[index]), self._how)

    def _warn_once(self, index: int, error: Exception) -> None:
        if index not in self._unusable:
            self._unusable.add(index)
            key = self._pictures[index].key
            log.warning("%s: %s %s; the next picture of its class stands in", self.name, key, error)

    def read(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Images uint8 [B, H, W, 3]: centre crops, decoded by several threads; the same for any number of them."""
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


def _check_classes(source: str, listing: Listing) -> None:
    """A store leaves empty class folders out and says so; here nobody would see it."""
    if empty := listing.left_out:
        listed = ", ".join(f"`{name}`" for name in empty[:5]) + (", ..." if len(empty) > 5 else "")
        classes = len(listing.class_names) + len(empty)
        raise DataError(f"{source}: {len(empty)} of {classes} classes have no images ({listed}); {ADVICE}")
