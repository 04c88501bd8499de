"""Make small sets of real images: crops of the photographs inside scikit-image's wheel."""

import json
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from hamgan.data.store import FORMAT, array_header

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "ihc.png", "brick.png")


def crop_photographs(seed: int, per_photograph: int, size: int = 32) -> np.ndarray:
    """Return random crops, uint8 [photographs * per_photograph, size, size, 3], sorted by photograph."""
    random, crops = np.random.default_rng(seed), []
    for name in PHOTOGRAPHS:
        picture = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        for _ in range(per_photograph):
            side = int(random.integers(100, 200))
            left, top = (int(random.integers(0, extent - side)) for extent in picture.size)
            box = (left, top, left + side, top + side)
            crops.append(np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box)))
    return np.stack(crops)


def save_flat(images: np.ndarray, folder: Path) -> Path:
    """Write PNGs 000.png, 001.png, ... into one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:03d}.png")
    return folder


def save_by_class(images: np.ndarray, folder: Path) -> Path:
    """Write PNGs into one folder per photograph."""
    for index, group in enumerate(np.split(images, len(PHOTOGRAPHS))):
        save_flat(group, folder / PHOTOGRAPHS[index].partition(".")[0])
    return folder


def save_store(images: np.ndarray, folder: Path) -> Path:
    """Write a prepared store with one class per photograph and the same images in both splits."""
    per_class = len(images) // len(PHOTOGRAPHS)
    entry = {"count": len(images), "sha256": "0" * 64, "histogram": [per_class] * len(PHOTOGRAPHS)}
    manifest = {
        "format": FORMAT,
        "source": "photographs",
        "class_names": list(PHOTOGRAPHS),
        "splits": {"train": entry, "val": entry},
        "preparation": {"resolution": images.shape[1]},
    }
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        (folder / split / "images.npy").write_bytes(array_header(len(images), images.shape[1]) + images.tobytes())
        np.save(folder / split / "labels.npy", np.repeat(np.arange(len(PHOTOGRAPHS)), per_class))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
