"""A look into a store: counts, histogram, colour statistics, hashes, and a contact sheet per class."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from hamgan.data.store import hash_shards, open_images, open_labels, read_manifest, split_hash
from hamgan.errors import DataError

_CHUNK = 512


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel of all pixels, in 0 to 255."""
    total, squares, pixels = np.zeros(3, np.int64), np.zeros(3, np.int64), 0
    for first in range(0, len(images), _CHUNK):
        flat = images[first : first + _CHUNK].reshape(-1, 3)
        for channel in range(3):
            values = np.bincount(flat[:, channel], minlength=256)
            total[channel] += values @ np.arange(256)
            squares[channel] += values @ np.arange(256) ** 2
        pixels += len(flat)
    mean = total / max(pixels, 1)
    return mean, np.sqrt(np.maximum(squares / max(pixels, 1) - mean**2, 0))


def contact_sheet(images: np.ndarray, columns: int = 8) -> Image.Image:
    """Images [N, H, W, 3] as one picture, row by row."""
    rows = -(-len(images) // columns)
    side = images.shape[1]
    sheet = np.full((rows * side, columns * side, 3), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = divmod(i, columns)
        sheet[y * side : (y + 1) * side, x * side : (x + 1) * side] = image
    return Image.fromarray(sheet)


def check_hashes(store: Path) -> None:
    """Raise DataError for the first shard whose pixels, or split whose labels, are not those of the manifest."""
    manifest = read_manifest(store)
    for split, entry in manifest["splits"].items():
        images = open_images(store, split, entry["count"], manifest["preparation"]["resolution"])
        with tqdm(total=len(images), unit="img", desc=f"hash {split}", mininterval=0.5) as bar:
            shards = hash_shards(images, bar.update)
        for found, written in zip(shards, entry["shards"], strict=True):
            if found != written:
                last = written["first"] + written["count"] - 1
                raise DataError(
                    f"{store}: images {written['first']} to {last} of {split} differ from the manifest's hash"
                )
        labels = open_labels(store, split, entry["count"], len(manifest["class_names"]))
        if split_hash(shards, labels) != entry["sha256"]:
            raise DataError(f"{store}: the labels of {split} differ from the manifest's hash")


def describe_store(store: Path) -> dict[str, Any]:
    """Counts, label histogram and colour statistics of every split, as JSON values."""
    manifest = read_manifest(store)
    report: dict[str, Any] = {key: manifest[key] for key in ("source", "preparation", "skipped", "left_out")}
    report["classes"] = len(manifest["class_names"])
    report["splits"] = {}
    for split, entry in manifest["splits"].items():
        images = open_images(store, split, entry["count"], manifest["preparation"]["resolution"])
        mean, deviation = channel_statistics(images)
        report["splits"][split] = {
            "count": entry["count"],
            "sha256": entry["sha256"],
            "mean": mean.round(3).tolist(),
            "deviation": deviation.round(3).tolist(),
            "histogram": dict(zip(manifest["class_names"], entry["histogram"], strict=True)),
        }
    return report


def write_sheets(store: Path, folder: Path, per_class: int = 64, split: str = "train") -> list[Path]:
    """A PNG with the first images of every class; returns their paths."""
    manifest = read_manifest(store)
    images = open_images(store, split, manifest["splits"][split]["count"], manifest["preparation"]["resolution"])
    labels = open_labels(store, split, len(images), len(manifest["class_names"]))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for label, name in enumerate(manifest["class_names"]):
        rows = np.flatnonzero(labels == label)[:per_class]
        safe_name = re.sub(r"[^\w.-]+", "_", name)[:80]
        path = folder / f"{label:04d}_{safe_name}.png"
        if len(rows):
            contact_sheet(images[rows]).save(path)
            paths.append(path)
    return paths


def summary(report: dict[str, Any], classes: int = 20) -> str:
    """`describe_store` as text: the smallest and largest classes where there are many."""
    how = report["preparation"]
    lines = [
        f"source      {report['source']}",
        f"prepared    {how['resolution']} px, crop {how['crop']}, filter {how['filter']}",
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
