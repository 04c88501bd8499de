"""One store out of the parts that several machines prepared."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hamgan.data.prepare import PreparationError, write_labels_and_hash, write_skips
from hamgan.data.sources import DataError
from hamgan.data.store import array_header, open_images, open_labels, read_manifest, to_json, write_atomically


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


def _append(target: Path, parts: list[Path], split: str, entries: list[dict[str, Any]], resolution: int) -> None:
    """Write all parts' images one after the other, each shard checked against its part's manifest."""
    total = sum(entry["count"] for entry in entries)
    with target.open("wb") as file, tqdm(total=total, unit="img", desc=f"merge {split}", mininterval=0.5) as bar:
        file.write(array_header(total, resolution))
        for part, entry in zip(parts, entries, strict=True):
            images = open_images(part, split, entry["count"], resolution)
            for shard in entry["shards"]:
                data = images[shard["first"] : shard["first"] + shard["count"]].data
                if hashlib.sha256(data).hexdigest() != shard["sha256"]:
                    raise DataError(f"{part}: images of {split} differ from its manifest's hash; prepare it anew")
                file.write(data)
                bar.update(shard["count"])
        file.flush()
        os.fsync(file.fileno())


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
    resolution, classes = manifests[0]["preparation"]["resolution"], manifests[0]["class_names"]
    partial = store.with_name(f".{store.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    needed = sum(file.stat().st_size for part in parts for file in part.glob("*/images.npy"))
    partial.mkdir(parents=True)
    if needed > shutil.disk_usage(partial).free:
        raise PreparationError(f"{store} needs {needed / 1e9:.2f} GB, more than is free there")
    splits = {}
    for split in ("train", "val"):
        if all(split in manifest["splits"] for manifest in manifests):
            (partial / split).mkdir()
            entries = [manifest["splits"][split] for manifest in manifests]
            _append(partial / split / "images.npy", parts, split, entries, resolution)
            labels = np.concatenate(
                [
                    open_labels(part, split, entry["count"], len(classes))
                    for part, entry in zip(parts, entries, strict=True)
                ]
            )
            splits[split] = write_labels_and_hash(partial, split, labels, len(classes), resolution)
    skips = [json.loads(line) for part in parts for line in (part / "skipped.jsonl").read_text("utf-8").splitlines()]
    write_skips(partial, skips)
    candidates = {split: sum(manifest["plan"]["candidates"][split] for manifest in manifests) for split in splits}
    plan = {**manifests[0]["plan"], "shard": [0, 1], "candidates": candidates}
    manifest = {**manifests[0], "splits": splits, "skipped": len(skips), "plan": plan}
    write_atomically(partial / "manifest.json", to_json(manifest))
    if store.exists():
        store.rmdir()
    partial.rename(store)
    return manifest
