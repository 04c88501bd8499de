"""One store out of the parts that several machines prepared."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hamgan.data.preparation.finishing import kept_classes, new_numbers, write_labels_and_hash, write_skips
from hamgan.data.store import array_header, open_images, open_labels, read_manifest, to_json, write_atomically
from hamgan.errors import DataError, PreparationError


def _check_parts(parts: list[Path], manifests: list[dict[str, Any]]) -> None:
    """All n parts of one plan, each once, in order."""
    first = {key: manifests[0]["plan"][key] for key in ("listing", "preparation")}
    total = manifests[0]["plan"]["shard"][1]
    for path, manifest in zip(parts, manifests, strict=True):
        for key, value in first.items():
            if manifest["plan"].get(key) != value:
                raise DataError(f"{path} was prepared with a different {key} than {parts[0]}; they cannot be merged")
    numbers = [manifest["plan"]["shard"][0] for manifest in manifests]
    if any(manifest["plan"]["shard"][1] != total for manifest in manifests) or numbers != list(range(total)):
        have = ", ".join(
            f"{number + 1}/{manifest['plan']['shard'][1]}" for number, manifest in zip(numbers, manifests, strict=True)
        )
        raise DataError(f"the parts are {have}; needed is each of 1/{total} to {total}/{total} once")


def _append(
    target: Path, parts: list[Path], split: str, entries: list[dict[str, Any]], keep: np.ndarray, resolution: int
) -> None:
    """Write all parts' images one after the other, each shard checked against its part's manifest.

    keep: bool [all images of the split]; the others are left out.
    """
    first = 0
    with target.open("wb") as file, tqdm(total=len(keep), unit="img", desc=f"merge {split}", mininterval=0.5) as bar:
        file.write(array_header(int(keep.sum()), resolution))
        for part, entry in zip(parts, entries, strict=True):
            images = open_images(part, split, entry["count"], resolution)
            for shard in entry["shards"]:
                pixels = images[shard["first"] : shard["first"] + shard["count"]]
                if hashlib.sha256(pixels.data).hexdigest() != shard["sha256"]:
                    raise DataError(f"{part}: images of {split} differ from its manifest's hash; prepare it anew")
                wanted = keep[first : first + len(pixels)]
                file.write(pixels.data if wanted.all() else pixels[wanted].data)
                first += len(pixels)
                bar.update(len(pixels))
        file.flush()
        os.fsync(file.fileno())


def _merge_split(
    store: Path, parts: list[Path], manifests: list[dict[str, Any]], split: str, numbers: np.ndarray
) -> dict[str, Any]:
    """A split of the new store, and its manifest entry; `numbers` are those of `new_numbers`."""
    (store / split).mkdir()
    resolution, entries = (
        manifests[0]["preparation"]["resolution"],
        [manifest["splits"][split] for manifest in manifests],
    )
    before = [
        open_labels(part, split, entry["count"], len(numbers)) for part, entry in zip(parts, entries, strict=True)
    ]
    labels = numbers[np.concatenate(before)]
    _append(store / split / "images.npy", parts, split, entries, labels >= 0, resolution)
    return write_labels_and_hash(store, split, labels[labels >= 0], int(numbers.max()) + 1, resolution)


def merge(store: Path, parts: list[Path]) -> dict[str, Any]:
    """Join all parts ``--shard 1/n`` to ``n/n`` into a new store and return its manifest.

    Raises DataError when they do not belong together or `store` exists. A killed merge is repeated from its start.
    """
    manifests = [read_manifest(part) for part in parts]
    ordered = sorted(zip(manifests, parts, strict=True), key=lambda pair: pair[0]["plan"]["shard"][0])
    manifests, parts = [pair[0] for pair in ordered], [pair[1] for pair in ordered]
    _check_parts(parts, manifests)
    if store.exists() and any(store.iterdir()):
        raise DataError(f"{store} is not empty; choose another place for the merged store")
    partial = store.with_name(f".{store.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    needed = sum(file.stat().st_size for part in parts for file in part.glob("*/images.npy"))
    partial.mkdir(parents=True)
    try:
        if needed > shutil.disk_usage(partial).free:
            raise PreparationError(f"{store} needs {needed / 1e9:.2f} GB, more than is free there")
        manifest = _write_merged(partial, parts, manifests)
        if store.exists():
            store.rmdir()
        partial.rename(store)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def _write_merged(store: Path, parts: list[Path], manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that a store holds; classes without a train image in any part are left out."""
    first = manifests[0]
    numbers = new_numbers(np.sum([manifest["splits"]["train"]["histogram"] for manifest in manifests], axis=0))
    kept = kept_classes(first["class_names"], numbers)
    splits = {split: _merge_split(store, parts, manifests, split, numbers) for split in first["splits"]}
    skips = [json.loads(line) for part in parts for line in (part / "skipped.jsonl").read_text("utf-8").splitlines()]
    write_skips(store, skips)
    candidates = {split: sum(manifest["plan"]["candidates"][split] for manifest in manifests) for split in splits}
    empty = {*first["left_out"]["class_folders"], *first["class_names"]} - set(kept)
    manifest = {
        **first,
        "class_names": kept,
        "left_out": {**first["left_out"], "class_folders": sorted(empty)},
        "skipped": len(skips),
        "splits": splits,
        "plan": {**first["plan"], "shard": [0, 1], "candidates": candidates},
    }
    write_atomically(store / "manifest.json", to_json(manifest))
    return manifest
