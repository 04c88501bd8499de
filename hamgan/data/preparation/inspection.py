"""Describe a store: counts, histogram, colour statistics, hashes, and a contact sheet per class."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from hamgan.data.preparation.finishing import hash_with_progress
from hamgan.data.source import Description
from hamgan.data.store import Manifest, open_images, open_labels, read_manifest, split_hash
from hamgan.errors import DataError

_CHUNK = 512


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation per channel of all pixels, in 0 to 255."""
    counts = np.zeros((3, 256), np.int64)
    for first in range(0, len(images), _CHUNK):
        pixels = images[first : first + _CHUNK].reshape(-1, 3)
        counts += [np.bincount(pixels[:, channel], minlength=256) for channel in range(3)]
    total, values = max(int(counts[0].sum()), 1), np.arange(256)
    mean = counts @ values / total
    return mean, np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0))


def contact_sheet(images: np.ndarray, columns: int = 8) -> Image.Image:
    """Arrange images [N, H, W, 3] row by row in one picture."""
    rows, side = -(-len(images) // columns), images.shape[1]
    cells = np.full((rows * columns, side, side, 3), 255, np.uint8)
    cells[: len(images)] = images
    sheet = cells.reshape(rows, columns, side, side, 3).swapaxes(1, 2)
    return Image.fromarray(sheet.reshape(rows * side, columns * side, 3))


def _open_splits(store: Path, manifest: Manifest) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the name, images and labels of every split."""
    for split, entry in manifest["splits"].items():
        images = open_images(store, split, entry["count"], manifest["preparation"]["resolution"])
        yield split, images, open_labels(store, split, entry["count"], len(manifest["class_names"]))


def check_hashes(store: Path) -> None:
    """Raise DataError for the first shard or labels whose hash differs from the manifest's."""
    manifest = read_manifest(store)
    for split, images, labels in _open_splits(store, manifest):
        entry = manifest["splits"][split]
        shards = hash_with_progress(images, split)
        for found, written in zip(shards, entry["shards"], strict=True):
            if found != written:
                last = written["first"] + written["count"] - 1
                raise DataError(
                    f"{store}: images {written['first']} to {last} of {split} differ from the manifest's hash"
                )
        if split_hash(shards, labels) != entry["sha256"]:
            raise DataError(f"{store}: the labels of {split} differ from the manifest's hash")


def describe_store(store: Path) -> Description:
    """Return counts, label histogram and colour statistics of every split, as JSON values."""
    manifest = read_manifest(store)
    splits = {}
    for split, images, _ in _open_splits(store, manifest):
        entry = manifest["splits"][split]
        mean, deviation = channel_statistics(images)
        splits[split] = {
            "count": entry["count"],
            "sha256": entry["sha256"],
            "mean": mean.round(3).tolist(),
            "deviation": deviation.round(3).tolist(),
            "histogram": dict(zip(manifest["class_names"], entry["histogram"], strict=True)),
        }
    kept = {key: manifest[key] for key in ("source", "preparation", "skipped", "left_out")}
    return {**kept, "classes": len(manifest["class_names"]), "splits": splits}


def write_sheets(store: Path, folder: Path, per_class: int = 64) -> list[Path]:
    """Write a PNG with the first training images of every class; returns their paths."""
    manifest = read_manifest(store)
    images, labels = next(pair[1:] for pair in _open_splits(store, manifest) if pair[0] == "train")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for label, name in enumerate(manifest["class_names"]):
        rows = np.flatnonzero(labels == label)[:per_class]
        if len(rows):
            safe_name = re.sub(r"[^\w.-]+", "_", name)[:80]
            paths.append(folder / f"{label:04d}_{safe_name}.png")
            contact_sheet(images[rows]).save(paths[-1])
    return paths


def summarise(report: Description, classes: int = 20) -> str:
    """Return `describe_store` as text, with the smallest and largest classes if there are many."""
    preparation = report["preparation"]
    lines = [
        f"source      {report['source']}",
        f"prepared    {preparation['resolution']} px, crop {preparation['crop']}, filter {preparation['filter']}, "
        f"colour profiles {preparation.get('profiles', 'ignored')}",
        f"classes     {report['classes']}",
        f"skipped     {report['skipped']} pictures (skipped.jsonl)",
    ]
    for split, entry in report["splits"].items():
        colours = ", ".join(f"{m:.1f} ± {d:.1f}" for m, d in zip(entry["mean"], entry["deviation"], strict=True))
        lines += [f"{split:<11} {entry['count']} images, sha256 {entry['sha256'][:16]}", f"            RGB {colours}"]
        ranked = sorted(entry["histogram"].items(), key=lambda item: (-item[1], item[0]))
        shown = ranked if len(ranked) <= classes else [*ranked[: classes // 2], ("...", -1), *ranked[-classes // 2 :]]
        most = max(ranked[0][1], 1)
        for name, count in shown:
            bar = "" if count < 0 else f"{count:>8}  " + "#" * round(30 * count / most)
            lines.append(f"            {name[:30]:<30} {bar}".rstrip())
    return "\n".join(lines)
