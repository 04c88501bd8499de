"""The end of a preparation, when all units are there; each of its steps can be repeated without harm after a kill.

The holes left by skipped pictures are filled with the last images, classes without a usable picture are left out, the
file is cut to its length, labels, hashes and at last the manifest are written.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hamgan.data.finding.picture import Listing, Picture
from hamgan.data.preparation.units import Unit
from hamgan.data.store import (
    FORMAT,
    HEADER_BYTES,
    array_header,
    hash_shards,
    open_images,
    split_hash,
    to_json,
    write_atomically,
)
from hamgan.errors import PreparationError


def _close_gaps(store: Path, split: str, valid: np.ndarray, resolution: int) -> np.ndarray:
    """Move the last images into the places of skipped pictures; returns the candidate of every image."""
    count = int(valid.sum())
    order = np.arange(count)
    holes = np.flatnonzero(~valid[:count])
    donors = count + np.flatnonzero(valid[count:])
    order[holes] = donors
    path = store / split / "images.npy"
    size = HEADER_BYTES + count * resolution**2 * 3
    if path.stat().st_size != size:
        images = np.memmap(path, np.uint8, "r+", HEADER_BYTES, (len(valid), resolution, resolution, 3))
        for hole, donor in zip(holes.tolist(), donors.tolist(), strict=True):
            images[hole] = images[donor]
        images.flush()
        del images
        with path.open("r+b") as file:
            file.write(array_header(count, resolution))
            file.truncate(size)
            os.fsync(file.fileno())
    return order


def _usable(
    store: Path, split: str, pictures: list[Picture], units: list[Unit], classes: list[str]
) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Which candidates of a split became images, bool [candidates], and the skip list of the others."""
    usable = np.ones(len(pictures), bool)
    skips = []
    for unit in units:
        for row, reason in json.loads((store / "work" / f"{unit.name}.json").read_text("utf-8")):
            usable[unit.first + row] = False
            picture = unit.pictures[row]
            skips.append({"file": picture.key, "class": classes[picture.label], "split": split, "reason": reason})
    return usable, skips


def new_numbers(histogram: np.ndarray) -> np.ndarray:
    """What every class is numbered when those without a train image are left out: int64 [classes], -1 for these."""
    used = histogram > 0
    return np.where(used, np.cumsum(used) - 1, -1)


def write_labels_and_hash(store: Path, split: str, labels: np.ndarray, classes: int, resolution: int) -> dict[str, Any]:
    """labels.npy, and the manifest entry of a split whose images are complete."""
    temporary = store / split / ".labels.tmp.npy"
    np.save(temporary, labels)
    temporary.replace(store / split / "labels.npy")
    images = open_images(store, split, len(labels), resolution)
    with tqdm(total=len(labels), unit="img", desc=f"hash {split}", mininterval=0.5) as bar:
        shards = hash_shards(images, bar.update)
    histogram = np.bincount(labels, minlength=classes).tolist()
    return {"count": len(labels), "sha256": split_hash(shards, labels), "histogram": histogram, "shards": shards}


def finish(
    store: Path, plan: dict[str, Any], listing: Listing, share: dict[str, list[Picture]], units: dict[str, list[Unit]]
) -> dict[str, Any]:
    """Make a store of its finished units and return its manifest.

    Raises PreparationError when fewer than two classes have a usable picture. A part of a larger store keeps all
    classes: whether one of them is empty shows when the parts are merged.
    """
    classes, resolution = listing.class_names, plan["preparation"]["resolution"]
    usable, skips = {}, []
    for split, pictures in share.items():
        usable[split], bad = _usable(store, split, pictures, units[split], classes)
        skips += bad
    write_skips(store, skips)
    labels = {split: np.asarray([picture.label for picture in pictures], np.int64) for split, pictures in share.items()}
    numbers = np.arange(len(classes))
    if plan["shard"][1] == 1:
        numbers = new_numbers(np.bincount(labels["train"][usable["train"]], minlength=len(classes)))
    kept = kept_classes(classes, numbers)
    splits = {}
    for split in share:
        order = _close_gaps(store, split, usable[split] & (numbers[labels[split]] >= 0), resolution)
        splits[split] = write_labels_and_hash(store, split, numbers[labels[split][order]], len(kept), resolution)
    empty = [name for name in classes if name not in set(kept)]
    manifest = {
        "format": FORMAT,
        "source": plan["source"],
        "preparation": plan["preparation"],
        "class_names": kept,
        "left_out": {
            "class_folders": sorted({*listing.left_out, *empty}),
            "pictures_without_class": listing.unclassed,
        },
        "skipped": len(skips),
        "splits": splits,
        "plan": plan,
    }
    write_atomically(store / "manifest.json", to_json(manifest))
    shutil.rmtree(store / "work")
    return manifest


def kept_classes(class_names: list[str], numbers: np.ndarray) -> list[str]:
    """Names of the classes that `new_numbers` keeps; PreparationError when they are fewer than two."""
    kept = [name for name, number in zip(class_names, numbers, strict=True) if number >= 0]
    if len(kept) < 2:
        raise PreparationError(
            f"{len(class_names) - len(kept)} of {len(class_names)} classes have no usable picture, skipped.jsonl says "
            "why; two are needed"
        )
    return kept


def write_skips(store: Path, skips: list[dict[str, str]]) -> None:
    """skipped.jsonl: one line per picture that could not be used."""
    lines = "".join(json.dumps(skip, ensure_ascii=False) + "\n" for skip in skips)
    write_atomically(store / "skipped.jsonl", lines.encode("utf-8", "backslashreplace"))
