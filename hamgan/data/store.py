"""A prepared data set on disk: one memory-mapped uint8 array per split, labels, and a manifest with hashes.

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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hamgan.errors import DataError

FORMAT = "hamgan-store-1"
HEADER_BYTES = 128
SHARD_IMAGES = 4096


def array_header(count: int, resolution: int) -> bytes:
    """The .npy header of uint8 [count, resolution, resolution, 3]; always 128 bytes, so that a count can change."""
    file = io.BytesIO()
    shape = (count, resolution, resolution, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    header = file.getvalue()
    assert len(header) == HEADER_BYTES
    return header


def write_atomically(path: Path, data: bytes) -> None:
    """Write under a temporary name, fsync, rename: a killed process leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def to_json(values: Any) -> bytes:
    """Readable JSON that is the same for the same values."""
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def read_manifest(store: Path) -> dict[str, Any]:
    """The manifest; raises DataError when the folder is not a finished store."""
    path = store / "manifest.json"
    if not path.is_file():
        unfinished = (
            " (its preparation has not finished; run the same command again)" if (store / "work").is_dir() else ""
        )
        raise DataError(f"{store} is not a prepared store: it has no manifest.json{unfinished}")
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error})") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise DataError(f"{path} has format {found!r}; this version reads {FORMAT}")
    if (lack := _lacking(manifest)) is not None:
        raise DataError(f"{path} is damaged (its {lack} is missing or of another kind); prepare the store anew")
    return manifest


def _lacking(manifest: dict[str, Any]) -> str | None:
    """The first key without which, or with another kind of value, no store can be read."""
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


def open_labels(store: Path, split: str, count: int, classes: int) -> np.ndarray:
    """The labels of a split, int64 [count], each below the number of classes; DataError."""
    path = store / split / "labels.npy"
    try:
        labels = np.load(path)
    except Exception as error:  # NumPy raises nearly anything for a damaged header, TokenError among it
        raise DataError(f"{path} is missing or damaged ({error})") from error
    if not isinstance(labels, np.ndarray) or labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(f"{path} is damaged: it should hold {count} whole numbers")
    if count and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(f"{path} holds labels {labels.min()} to {labels.max()}; the store has {classes} classes")
    return labels


def open_images(store: Path, split: str, count: int, resolution: int) -> np.ndarray:
    """The images of a split, mapped read-only: several processes share one copy, also of a file larger than memory.

    (A private writable mapping counts as memory of the process, and Linux refuses one that is larger than the RAM.)
    """
    path = store / split / "images.npy"
    try:
        images = np.load(path, mmap_mode="r")
    except Exception as error:  # NumPy raises nearly anything for a damaged header, TokenError among it
        raise DataError(f"{path} is missing or damaged ({error})") from error
    if not isinstance(images, np.ndarray):
        raise DataError(f"{path} is damaged: it is no array")
    if images.shape != (count, resolution, resolution, 3) or images.dtype != np.uint8:
        raise DataError(f"{path} holds {images.dtype} {images.shape}; the manifest: {count} images of {resolution} px")
    return images


def hash_shards(images: np.ndarray, done: Callable[[int], Any] = lambda count: None) -> list[dict[str, Any]]:
    """sha256 of every 4096 images; hashing and reading run in threads."""

    def one(first: int) -> dict[str, Any]:
        shard = images[first : first + SHARD_IMAGES]
        digest = hashlib.sha256()
        for image in shard:
            digest.update(image)
        done(len(shard))
        return {"first": first, "count": len(shard), "sha256": digest.hexdigest()}

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(one, range(0, len(images), SHARD_IMAGES)))


def split_hash(shards: list[dict[str, Any]], labels: np.ndarray) -> str:
    """One hash for a split: over its shards' hashes and its labels."""
    digest = hashlib.sha256("".join(shard["sha256"] for shard in shards).encode())
    digest.update(np.ascontiguousarray(labels, "<i8").tobytes())
    return digest.hexdigest()


class StoreSource:
    """One split of a prepared store."""

    def __init__(self, store: Path, split: str, resolution: int) -> None:
        manifest = read_manifest(store)
        if split not in manifest["splits"]:
            raise DataError(f"{store} has no split `{split}`; it has {', '.join(manifest['splits'])}")
        prepared = manifest["preparation"]["resolution"]
        if resolution != prepared:
            raise DataError(
                f"{store} was prepared at {prepared} px, not {resolution}; use {prepared} or prepare it anew"
            )
        self._store = store
        self._manifest, self._entry = manifest, manifest["splits"][split]
        self.name, self.split, self.resolution = str(store), split, resolution
        self.class_names = list(manifest["class_names"])
        self.labels = open_labels(store, split, self._entry["count"], len(self.class_names))
        self._images = open_images(store, split, self._entry["count"], resolution)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Images uint8 [B, H, W, 3]; IndexError outside 0 to N - 1."""
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"{self.name} ({self.split}) has images 0 to {len(self) - 1}")
        # "clip", with nothing to clip: numpy.take would gather into a buffer and copy it in the default mode.
        return np.take(self._images, indices, axis=0, out=out, mode="clip")

    def expect(self, indices: np.ndarray) -> None:
        """Ask the system to read these images from the disk in the background."""
        if not hasattr(os, "posix_fadvise"):  # not on macOS
            return
        size = self.resolution**2 * 3
        with (self._store / self.split / "images.npy").open("rb") as file:
            for offset in (HEADER_BYTES + np.sort(indices) * size).tolist():
                os.posix_fadvise(file.fileno(), offset, size, os.POSIX_FADV_WILLNEED)

    def describe(self) -> dict[str, Any]:
        """The protocol of the preparation; the hash covers every pixel and label."""
        return {
            "source": self._manifest["source"],
            "split": self.split,
            "count": len(self),
            "classes": len(self.class_names),
            **self._manifest["preparation"],
            "sha256": self._entry["sha256"],
        }
