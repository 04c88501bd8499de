"""Read a prepared data set: one memory-mapped uint8 array per split, labels, and a manifest with hashes.

STORE/manifest.json      source, preparation, class names; per split the count, label histogram, sha256 per shard
STORE/skipped.jsonl      pictures that could not be used, each with its reason
STORE/train/images.npy   uint8 [N, H, W, 3], opened by numpy.load(..., mmap_mode="r") as well
STORE/train/labels.npy   int64 [N]
STORE/val/...            where there is a held-out split
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import numpy as np

from hamgan.data.decoding.kinds import describe_left_out
from hamgan.data.source import Description, description
from hamgan.errors import DataError

FORMAT = "hamgan-store-1"
HEADER_BYTES = 128
SHARD_IMAGES = 4096


class Shard(TypedDict):
    """Hold the hash of up to 4096 consecutive images of a split."""

    first: int
    count: int
    sha256: str


class SplitEntry(TypedDict):
    """Describe one split in the manifest."""

    count: int
    sha256: str
    histogram: list[int]
    shards: list[Shard]


class PreparationPlan(TypedDict):
    """Hold the inputs of a preparation, which only an equal plan can continue."""

    source: str
    listing: str
    """sha256 of the candidates."""
    preparation: Description
    shard: list[int]
    """[i, n]: part i of n, counted from 0."""
    candidates: dict[str, int]


class LeftOut(TypedDict):
    """Count the files of a source that a store leaves out."""

    class_folders: list[str]
    pictures_without_class: int
    unread: NotRequired[dict[str, int]]
    """File extension -> number of files that were not read; missing in stores of earlier versions."""


class Manifest(TypedDict):
    """Describe the contents of STORE/manifest.json."""

    format: str
    source: str
    preparation: Description
    class_names: list[str]
    left_out: LeftOut
    skipped: int
    splits: dict[str, SplitEntry]
    plan: PreparationPlan


def array_header(count: int, resolution: int) -> bytes:
    """Return the .npy header of uint8 [count, resolution, resolution, 3], always 128 bytes, so replaceable."""
    file = io.BytesIO()
    shape = (count, resolution, resolution, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    header = file.getvalue()
    assert len(header) == HEADER_BYTES
    return header


def to_json(values: object) -> bytes:
    """Return readable JSON, equal for equal values."""
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def read_manifest(store: Path) -> Manifest:
    """Read the manifest; raises DataError if the folder is not a finished store."""
    path = store / "manifest.json"
    if not path.is_file():
        begun = (store / "work").is_dir()
        unfinished = " (its preparation has not finished; run the same command again)" if begun else ""
        raise DataError(f"{store} is not a prepared store: it has no manifest.json{unfinished}")
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error})") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise DataError(f"{path} has format {found!r}; this version reads {FORMAT}")
    if (lacking := _lacking_key(manifest)) is not None:
        raise DataError(f"{path} is damaged (its {lacking} is missing or of another kind); prepare the store anew")
    return cast(Manifest, manifest)


def _lacking_key(manifest: Description) -> str | None:
    """Return the first required key that is missing or has a value of another type, else None."""
    for key, kind in (("source", str), ("class_names", list), ("preparation", dict), ("splits", dict)):
        if not isinstance(manifest.get(key), kind):
            return key
    if not all(isinstance(name, str) for name in manifest["class_names"]):
        return "class_names"
    if not isinstance(manifest["preparation"].get("resolution"), int):
        return "preparation.resolution"
    for split, entry in manifest["splits"].items():
        if not isinstance(entry, dict) or not isinstance(entry.get("count"), int) or "sha256" not in entry:
            return f"splits.{split}"
    return None


def _load_array(path: Path, memory_map: bool) -> np.ndarray:
    try:
        values = np.load(path, mmap_mode="r" if memory_map else None)
    except Exception as error:  # NumPy raises nearly anything for a damaged header, even TokenError
        raise DataError(f"{path} is missing or damaged ({error})") from error
    if not isinstance(values, np.ndarray):
        raise DataError(f"{path} is damaged: it is no array")
    return values


def open_labels(store: Path, split: str, count: int, classes: int) -> np.ndarray:
    """Read the labels of a split, int64 [count]; raises DataError unless each is below the number of classes."""
    path = store / split / "labels.npy"
    labels = _load_array(path, memory_map=False)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(f"{path} is damaged: it should hold {count} whole numbers")
    if count and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(f"{path} holds labels {labels.min()} to {labels.max()}; the store has {classes} classes")
    return labels


def open_images(store: Path, split: str, count: int, resolution: int) -> np.ndarray:
    """Map the images of a split read-only, so that processes share one copy, even of a file larger than memory.

    (A private writable mapping counts as memory of the process, and Linux refuses one larger than the RAM.)
    """
    path = store / split / "images.npy"
    images = _load_array(path, memory_map=True)
    if images.shape != (count, resolution, resolution, 3) or images.dtype != np.uint8:
        raise DataError(f"{path} holds {images.dtype} {images.shape}; the manifest: {count} images of {resolution} px")
    return images


def hash_shards(images: np.ndarray, report: Callable[[int], object] = lambda count: None) -> list[Shard]:
    """Hash every 4096 images, in threads; ``report`` is called with the number of images just hashed."""

    def hash_one(first: int) -> Shard:
        images_of_shard = images[first : first + SHARD_IMAGES]
        digest = hashlib.sha256()
        for image in images_of_shard:
            digest.update(image)
        report(len(images_of_shard))
        return {"first": first, "count": len(images_of_shard), "sha256": digest.hexdigest()}

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(hash_one, range(0, len(images), SHARD_IMAGES)))


def split_hash(shards: Sequence[Shard], labels: np.ndarray) -> str:
    """Hash a split, from the hashes of its shards and its labels."""
    digest = hashlib.sha256("".join(shard["sha256"] for shard in shards).encode())
    digest.update(np.ascontiguousarray(labels, "<i8").tobytes())
    return digest.hexdigest()


class StoreSource:
    """Read one split of a prepared store."""

    def __init__(self, store: Path, split: str, resolution: int) -> None:
        self._manifest = manifest = read_manifest(store)
        if split not in manifest["splits"]:
            raise DataError(f"{store} has no split `{split}`; it has {', '.join(manifest['splits'])}")
        prepared = manifest["preparation"]["resolution"]
        if resolution != prepared:
            raise DataError(
                f"{store} was prepared at {prepared} px, not {resolution}; use {prepared} or prepare it anew"
            )
        self._store, self._entry = store, manifest["splits"][split]
        self.name, self.split, self.resolution = str(store), split, resolution
        self.class_names = list(manifest["class_names"])
        self.labels = open_labels(store, split, self._entry["count"], len(self.class_names))
        self._images = open_images(store, split, self._entry["count"], resolution)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return images uint8 [B, H, W, 3]; IndexError outside 0 to N - 1."""
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"{self.name} ({self.split}) has images 0 to {len(self) - 1}")
        # mode="clip", though nothing is clipped: in the default mode numpy.take gathers into a buffer and copies it.
        return np.take(self._images, indices, axis=0, out=out, mode="clip")

    def expect(self, indices: np.ndarray) -> None:
        """Ask the operating system to read these images from disk in the background."""
        if not hasattr(os, "posix_fadvise"):  # not on macOS
            return
        size = self.resolution**2 * 3
        with (self._store / self.split / "images.npy").open("rb") as file:
            for offset in (HEADER_BYTES + np.sort(indices) * size).tolist():
                os.posix_fadvise(file.fileno(), offset, size, os.POSIX_FADV_WILLNEED)

    def describe(self) -> Description:
        """Return the protocol of the preparation; the hash covers every pixel and label."""
        described = description(self, self._manifest["preparation"], self._entry["sha256"])
        found = self._manifest.get("left_out", {})
        left_out = describe_left_out(found.get("pictures_without_class", 0), found.get("unread", {}))
        return {**described, "source": self._manifest["source"], **({"left_out": left_out} if left_out else {})}
