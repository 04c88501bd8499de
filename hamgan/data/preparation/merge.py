"""Merge the parts that several machines prepared into one store."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hamgan.data.preparation.finishing import kept_classes, new_numbers, write_labels_and_hash, write_skips
from hamgan.data.store import Manifest, SplitEntry, array_header, open_images, open_labels, read_manifest, to_json
from hamgan.errors import DataError, PreparationError
from hamgan.files import write_atomically
from hamgan.progress import ProgressBar

Part = tuple[Path, Manifest]


def merge(store: Path, folders: Sequence[Path]) -> Manifest:
    """Merge all parts ``--shard 1/n`` to ``n/n`` into a new store; returns its manifest.

    Raises DataError if they do not belong together or ``store`` is not empty. After a kill, merge again from the start.
    """
    parts = sorted(((folder, read_manifest(folder)) for folder in folders), key=lambda part: part[1]["plan"]["shard"])
    _check_parts(parts)
    if store.exists() and any(store.iterdir()):
        raise DataError(f"{store} is not empty; choose another place for the merged store")
    partial = store.with_name(f".{store.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    needed = sum(file.stat().st_size for folder in folders for file in folder.glob("*/images.npy"))
    partial.mkdir(parents=True)
    try:
        if needed > shutil.disk_usage(partial).free:
            raise PreparationError(f"{store} needs {needed / 1e9:.2f} GB, more than is free on its disk")
        manifest = _write_merged(partial, parts)
        if store.exists():
            store.rmdir()
        partial.rename(store)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _check_parts(parts: Sequence[Part]) -> None:
    """Raise DataError unless these are all n parts of one plan, without duplicates."""
    first, expected = parts[0][0], parts[0][1]["plan"]
    total = expected["shard"][1]
    for folder, manifest in parts:
        for key in ("listing", "preparation"):
            if manifest["plan"].get(key) != expected.get(key):
                raise DataError(f"{folder} was prepared with a different {key} than {first}; they cannot be merged")
    shards = [manifest["plan"]["shard"] for _, manifest in parts]
    if shards != [[number, total] for number in range(total)]:
        have = ", ".join(f"{number + 1}/{of}" for number, of in shards)
        raise DataError(f"the parts are {have}; each of 1/{total} to {total}/{total} is needed once")


def _write_merged(store: Path, parts: Sequence[Part]) -> Manifest:
    """Write the whole store; classes without a train image in any part are left out."""
    manifests = [manifest for _, manifest in parts]
    first = manifests[0]
    numbers = new_numbers(np.sum([manifest["splits"]["train"]["histogram"] for manifest in manifests], axis=0))
    kept = kept_classes(first["class_names"], numbers)
    splits = {split: _merge_split(store, parts, split, numbers) for split in first["splits"]}
    lines = [line for folder, _ in parts for line in (folder / "skipped.jsonl").read_text("utf-8").splitlines()]
    write_skips(store, [json.loads(line) for line in lines])
    candidates = {split: sum(manifest["plan"]["candidates"][split] for manifest in manifests) for split in splits}
    empty = {*first["left_out"]["class_folders"], *first["class_names"]} - set(kept)
    manifest: Manifest = {
        **first,
        "class_names": kept,
        "left_out": {**first["left_out"], "class_folders": sorted(empty)},
        "skipped": len(lines),
        "splits": splits,
        "plan": {**first["plan"], "shard": [0, 1], "candidates": candidates},
    }
    write_atomically(store / "manifest.json", to_json(manifest))
    return manifest


def _merge_split(store: Path, parts: Sequence[Part], split: str, numbers: np.ndarray) -> SplitEntry:
    """Write a split of the new store, with classes renumbered by `new_numbers`; returns its manifest entry."""
    (store / split).mkdir()
    resolution = parts[0][1]["preparation"]["resolution"]
    labels = numbers[
        np.concatenate(
            [open_labels(folder, split, manifest["splits"][split]["count"], len(numbers)) for folder, manifest in parts]
        )
    ]
    _append_images(store / split / "images.npy", parts, split, labels >= 0, resolution)
    return write_labels_and_hash(store, split, labels[labels >= 0], int(numbers.max()) + 1, resolution)


def _append_images(target: Path, parts: Sequence[Part], split: str, keep: np.ndarray, resolution: int) -> None:
    """Append the images of all parts, checking each shard against its part's manifest.

    ``keep``, bool [all images of the split], selects the images.
    """
    first = 0
    with target.open("wb") as file, ProgressBar(len(keep), f"merge {split}") as bar:
        file.write(array_header(int(keep.sum()), resolution))
        for folder, manifest in parts:
            entry = manifest["splits"][split]
            images = open_images(folder, split, entry["count"], resolution)
            for shard in entry["shards"]:
                pixels = images[shard["first"] : shard["first"] + shard["count"]]
                if hashlib.sha256(pixels.data).hexdigest() != shard["sha256"]:
                    raise DataError(f"{folder}: images of {split} differ from its manifest's hash; prepare it anew")
                wanted = keep[first : first + len(pixels)]
                file.write(pixels.data if wanted.all() else pixels[wanted].data)
                first += len(pixels)
                bar.update(len(pixels))
        file.flush()
        os.fsync(file.fileno())
