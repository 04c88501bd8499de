"""Finish a preparation when all units are done; every step can be repeated after the process was killed.

Gaps from skipped pictures are filled with the last images, classes without a usable picture are left out, the file is
truncated, and labels, hashes and finally the manifest are written.
"""

import io
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hamgan.data.finding.picture import Listing
from hamgan.data.preparation.units import Unit
from hamgan.data.store import (
    FORMAT,
    HEADER_BYTES,
    Manifest,
    PreparationPlan,
    Shard,
    SplitEntry,
    array_header,
    hash_shards,
    open_images,
    split_hash,
    to_json,
)
from hamgan.errors import PreparationError
from hamgan.files import remove_leftovers, write_atomically
from hamgan.progress import ProgressBar

Skip = dict[str, str]
"""A line of skipped.jsonl: file, class, split and reason."""


def finish(store: Path, plan: PreparationPlan, listing: Listing, units: dict[str, list[Unit]]) -> Manifest:
    """Turn finished units (by split) into a store; returns its manifest.

    Raises PreparationError if fewer than two classes have a usable picture. A part of a larger store keeps all classes;
    empty ones are left out when the parts are merged.
    """
    classes, resolution = listing.class_names, plan["preparation"]["resolution"]
    for folder in (store, *(store / split for split in units)):
        remove_leftovers(folder)
    usable: dict[str, np.ndarray] = {}
    skips: list[Skip] = []
    for split, of_split in units.items():
        usable[split], skipped = _read_markers(store, of_split, classes)
        skips += skipped
    write_skips(store, skips)
    labels = {
        split: np.asarray([picture.label for unit in of_split for picture in unit.pictures], np.int64)
        for split, of_split in units.items()
    }
    numbers = np.arange(len(classes))
    if plan["shard"][1] == 1:
        numbers = new_numbers(np.bincount(labels["train"][usable["train"]], minlength=len(classes)))
    kept = kept_classes(classes, numbers)
    splits = {}
    for split in units:
        order = _close_gaps(store / split / "images.npy", usable[split] & (numbers[labels[split]] >= 0), resolution)
        splits[split] = write_labels_and_hash(store, split, numbers[labels[split][order]], len(kept), resolution)
    empty = set(classes) - set(kept)
    manifest: Manifest = {
        "format": FORMAT,
        "source": plan["source"],
        "preparation": plan["preparation"],
        "class_names": kept,
        "left_out": {
            "class_folders": sorted({*listing.left_out, *empty}),
            "pictures_without_class": listing.unclassed,
            "unread": listing.unread,
        },
        "skipped": len(skips),
        "splits": splits,
        "plan": plan,
    }
    write_atomically(store / "manifest.json", to_json(manifest))
    shutil.rmtree(store / "work")
    return manifest


def _read_markers(store: Path, units: Sequence[Unit], classes: Sequence[str]) -> tuple[np.ndarray, list[Skip]]:
    """Return which candidates of a split became images, bool [candidates], and the skips of the others."""
    usable = np.ones(sum(len(unit.pictures) for unit in units), bool)
    skips = []
    for unit in units:
        for row, reason in json.loads(unit.marker(store).read_text("utf-8")):
            usable[unit.first + row] = False
            picture = unit.pictures[row]
            skips.append({"file": picture.key, "class": classes[picture.label], "split": unit.split, "reason": reason})
    return usable, skips


def _close_gaps(path: Path, usable: np.ndarray, resolution: int) -> np.ndarray:
    """Move the last images of a file into gaps of skipped pictures; returns the candidate index of every image."""
    count = int(usable.sum())
    order = np.arange(count)
    holes = np.flatnonzero(~usable[:count])
    donors = count + np.flatnonzero(usable[count:])
    order[holes] = donors
    size = HEADER_BYTES + count * resolution**2 * 3
    if path.stat().st_size != size:
        images = np.memmap(path, np.uint8, "r+", HEADER_BYTES, (len(usable), resolution, resolution, 3))
        for hole, donor in zip(holes.tolist(), donors.tolist(), strict=True):
            images[hole] = images[donor]
        images.flush()
        del images
        with path.open("r+b") as file:
            file.write(array_header(count, resolution))
            file.truncate(size)
            os.fsync(file.fileno())
    return order


def new_numbers(histogram: np.ndarray) -> np.ndarray:
    """Renumber the classes that have train images: int64 [classes], -1 for classes that are left out."""
    used = histogram > 0
    return np.where(used, np.cumsum(used) - 1, -1)


def kept_classes(class_names: Sequence[str], numbers: np.ndarray) -> list[str]:
    """Return the names of the classes that `new_numbers` keeps; PreparationError if there are fewer than two."""
    kept = [name for name, number in zip(class_names, numbers, strict=True) if number >= 0]
    if len(kept) < 2:
        raise PreparationError(
            f"{len(class_names) - len(kept)} of {len(class_names)} classes have no usable picture, skipped.jsonl says "
            "why; two are needed"
        )
    return kept


def write_labels_and_hash(store: Path, split: str, labels: np.ndarray, classes: int, resolution: int) -> SplitEntry:
    """Write labels.npy of a split with complete images; returns its entry in the manifest."""
    file = io.BytesIO()
    np.save(file, labels)
    write_atomically(store / split / "labels.npy", file.getvalue())
    shards = hash_with_progress(open_images(store, split, len(labels), resolution), split)
    histogram = np.bincount(labels, minlength=classes).tolist()
    return {"count": len(labels), "sha256": split_hash(shards, labels), "histogram": histogram, "shards": shards}


def hash_with_progress(images: np.ndarray, split: str) -> list[Shard]:
    """Hash the shards of a split, with a progress bar."""
    with ProgressBar(len(images), f"hash {split}") as bar:
        return hash_shards(images, bar.update)


def write_skips(store: Path, skips: Sequence[Skip]) -> None:
    """Write skipped.jsonl, one line per picture that could not be used."""
    lines = "".join(json.dumps(skip, ensure_ascii=False) + "\n" for skip in skips)
    write_atomically(store / "skipped.jsonl", lines.encode("utf-8", "backslashreplace"))
