"""Small sets of real images: crops of the photographs inside scikit-image's wheel."""

from pathlib import Path

import numpy as np
import skimage
from PIL import Image

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "ihc.png", "brick.png")


def crop_photographs(seed: int, per_photograph: int, size: int = 32) -> np.ndarray:
    """Random crops, uint8 [photographs * per_photograph, size, size, 3], sorted by photograph."""
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
    """PNGs 000.png, 001.png, ... in one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:03d}.png")
    return folder


def save_by_class(images: np.ndarray, folder: Path) -> Path:
    """PNGs in one folder per photograph."""
    for index, group in enumerate(np.split(images, len(PHOTOGRAPHS))):
        save_flat(group, folder / PHOTOGRAPHS[index].partition(".")[0])
    return folder
