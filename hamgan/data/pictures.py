"""Read training images directly from folders, tar and zip files, WebDataset shards, CIFAR or the Hugging Face hub."""

import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hamgan.data.decoding.decode import Preparation, decode
from hamgan.data.decoding.kinds import describe_left_out
from hamgan.data.finding.folders import SPLIT_FOLDERS
from hamgan.data.finding.listing import list_pictures
from hamgan.data.finding.locations import download_folder
from hamgan.data.finding.picture import Listing
from hamgan.data.finding.reading import hash_bytes, read_bytes
from hamgan.data.source import Description, description, name_some
from hamgan.errors import DataError

log = logging.getLogger(__name__)

ADVICE = "remove or fill them, or prepare a store, which leaves such classes out"


class PictureSource:
    """Read the pictures found by `list_pictures`, decoding them on every read.

    An index gives random access to all pictures, also in WebDataset shards, so the order is as exact as a store's. A
    picture that cannot be decoded is replaced by the next one of its class. Reads some 400 images/s per core at 500 x
    375 pixels and needs some 500 bytes of memory per picture and process: prepare a store for anything large.
    """

    def __init__(self, source: str, split: str, resolution: int, *, as_reference: bool = False) -> None:
        listing = list_pictures(source, download_folder() / "unpacked")
        for note in listing.notes:
            log.warning("data: %s", note)
        # A store leaves these out with a message, which nobody would see here.
        if (empty := listing.left_out) and not as_reference:
            classes = len(listing.class_names) + len(empty)
            raise DataError(
                f"{source}: {len(empty)} of {classes} classes have no images ({name_some(empty)}); {ADVICE}"
            )
        if as_reference and not listing.has_splits:
            split = "train"
        if not listing.pictures[split]:
            looked = "/, ".join(SPLIT_FOLDERS[split])
            raise DataError(f"{source} has no split `{split}` (looked for {looked}/ next to train/)")
        self.name, self.split, self.resolution = source, split, resolution
        self.class_names = listing.class_names
        self._pictures = listing.pictures[split]
        self._left_out = describe_left_out(listing.unclassed, listing.unread)
        self._sha256 = Listing(listing.class_names, {split: self._pictures}).sha256()
        self.labels = np.asarray([picture.label for picture in self._pictures], np.int64)
        self._preparation = Preparation(resolution)
        self._pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1), "decode")
        self._unusable: set[int] = set()
        self._naming = threading.Lock()
        # A class without a usable picture ends a run before it starts; the check decodes one picture per class.
        self.read(np.unique(self.labels, return_index=True)[1])

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return images uint8 [B, H, W, 3]: centre crops, decoded by threads, with the same result for any number.

        Raises DataError for a class without a usable picture.
        """
        if out is None:
            out = np.empty((len(indices), self.resolution, self.resolution, 3), np.uint8)
        for row, image in enumerate(self._pool.map(self._read_one, indices.tolist())):
            out[row] = image
        return out

    def _read_one(self, index: int) -> np.ndarray:
        failures: dict[int, str] = {}
        for candidate in self._same_class(index):
            try:
                image = decode(read_bytes(self._pictures[candidate]), self._preparation)
            except (DataError, OSError) as error:
                failures[candidate] = f"{self._pictures[candidate].key} {error}"
                continue
            with self._naming:  # two threads may meet the same picture, which is reported once
                for unusable in [failed for failed in failures if failed not in self._unusable]:
                    log.warning("%s: %s; the next picture of its class replaces it", self.name, failures[unusable])
                self._unusable |= failures.keys()
            return image
        name = self.class_names[self.labels[index]]
        raise DataError(f"no picture of class `{name}` in {self.name} can be used ({failures[index]}); {ADVICE}")

    def _same_class(self, index: int) -> Iterator[int]:
        """Yield a picture, then the others of its class in order, from the next one on."""
        yield index
        members = np.flatnonzero(self.labels == self.labels[index])
        yield from np.roll(members, -1 - int(np.searchsorted(members, index))).tolist()[:-1]

    def hash_content(self) -> str:
        """Hash the bytes, class and position of every picture, which reads all of them, unlike `describe`."""
        digest = hashlib.sha256("\0".join(self.class_names).encode("utf-8", "surrogateescape"))
        for part in self._pool.map(hash_bytes, self._pictures):
            digest.update(part.encode())
        return digest.hexdigest()

    def describe(self) -> Description:
        """Return the protocol; the hash covers names and sizes of the files, not their pixels."""
        chosen = self._preparation.protocol()
        made = {key: chosen[key] for key in ("crop", "filter", "resolution", "profiles")}
        left_out = {"left_out": self._left_out} if self._left_out else {}
        return description(self, made | left_out, self._sha256)
