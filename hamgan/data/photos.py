"""Crop a data set from the photographs and textures in scikit-image's package.

Each photograph is a class. It is cut into strips that belong alternately to the train and the held-out split, so no
pixel is in both. Every strip is resized separately, so antialiasing does not cross a cut. An image is a crop of one
resized strip, chosen by hashing (split, class, index).
"""

import hashlib
import json
from dataclasses import astuple, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from hamgan.data.source import SPLITS, Description, description
from hamgan.errors import DataError

IMAGES_PER_CLASS = {"train": 10_000, "val": 1_000}
# A crop's side as a share of the strip's width. Below 0.6 a 32-pixel crop of the cat or the cup is only a colour.
SCALES = (1.0, 0.88, 0.77, 0.68, 0.6)
RESOLUTIONS = range(8, 513)


@dataclass(frozen=True)
class Photo:
    """Describe one photograph and how it is cut."""

    file: str
    """File in skimage/data."""
    rows: bool
    """Whether strips are rows (horizontal cuts) or columns."""
    box: tuple[int, int, int, int] | None = None
    """(left, upper, right, lower) of the part that shows the subject; None for all."""
    strips: int = 5
    """Number of strips; the 2nd, 4th, ... are held out."""


# The direction of the strips makes held-out crops most similar to train crops, by the distance of the mean
# efficientnet-lite0 features relative to their spread. The boxes exclude what other photographs show as well (white
# paper, plain background). Pictures that cannot be recognised from a 32-pixel crop are excluded: the camera man (sky,
# lawn and coat look like three classes), gravel (like grass), the moon and handwriting (plain grey).
PHOTOS = {
    "astronaut": Photo("astronaut.png", rows=False, box=(60, 170, 460, 512)),
    "brick": Photo("brick.png", rows=True),
    "cat": Photo("chelsea.png", rows=True, box=(20, 0, 360, 300)),
    "coffee": Photo("coffee.png", rows=False),
    "coins": Photo("coins.png", rows=False, box=(0, 10, 384, 300)),
    "galaxies": Photo("hubble_deep_field.jpg", rows=True),
    "grass": Photo("grass.png", rows=True),
    "motorcycle": Photo("motorcycle_left.png", rows=False, box=(80, 20, 700, 460)),
    "print": Photo("page.png", rows=False, box=(0, 0, 384, 170)),
    "retina": Photo("retina.jpg", rows=False, box=(210, 210, 1200, 1200)),
    "rocket": Photo("rocket.jpg", rows=False, box=(20, 60, 620, 420)),
    "tissue": Photo("ihc.png", rows=False),
}


def strip_boxes(photo: Photo, width: int, height: int, split: str) -> list[tuple[int, int, int, int]]:
    """Return boxes (left, upper, right, lower) of a split's strips in a photograph of width x height pixels."""
    left, upper, right, lower = photo.box or (0, 0, width, height)
    start, stop = (upper, lower) if photo.rows else (left, right)
    cuts = np.linspace(start, stop, photo.strips + 1).round().astype(int).tolist()
    spans = list(pairwise(cuts))[SPLITS.index(split) :: 2]
    return [(left, a, right, b) if photo.rows else (a, upper, b, lower) for a, b in spans]


def photo_folder() -> Path:
    """Return the folder of scikit-image's photographs."""
    import skimage

    return Path(skimage.__file__).parent / "data"


def _read_strips(photo: Photo, split: str) -> list[Image.Image]:
    path = photo_folder() / photo.file
    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB")
    except OSError as error:
        raise DataError(f"scikit-image's photograph {photo.file} cannot be read ({error}); reinstall it") from error
    return [pixels.crop(box) for box in strip_boxes(photo, *pixels.size, split)]


@cache
def _mixing_key(split: str, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{split}/{name}".encode()).digest()[:8], "little")


def _uniforms(key: int, index: int) -> list[float]:
    """Draw four numbers in [0, 1) by SplitMix64 (Steele et al. 2014), which is stable across NumPy versions."""
    mask, values = (1 << 64) - 1, []
    for draw in range(4):
        z = (key + (4 * index + draw + 1) * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        values.append(((z ^ (z >> 31)) >> 11) * 2.0**-53)
    return values


class PhotoSource:
    """Crop scikit-image's photographs: 10,000 train or 1,000 held-out images per class.

    The class of image i is ``i % classes``, so any prefix is balanced. The same index shows the same content at every
    resolution. Needs about 100 MB of memory at 128 px.
    """

    origin = "crops of the photographs that scikit-image ships"

    def __init__(self, split: str, resolution: int) -> None:
        if resolution not in RESOLUTIONS:
            raise DataError(
                f"photos at {resolution} px are not available; allowed: {RESOLUTIONS.start} to {RESOLUTIONS.stop - 1}"
            )
        self.name, self.split, self.resolution = "photos", split, resolution
        self.class_names = list(PHOTOS)
        self.labels = np.tile(np.arange(len(PHOTOS), dtype=np.int64), IMAGES_PER_CLASS[split])
        self._keys = [_mixing_key(split, name) for name in PHOTOS]
        strips = {name: _read_strips(photo, split) for name, photo in PHOTOS.items()}
        digest = hashlib.sha256(json.dumps([SCALES, *map(astuple, PHOTOS.values())]).encode())
        for strip in (strip for group in strips.values() for strip in group):
            digest.update(strip.tobytes())
        self._sha256 = digest.hexdigest()
        self._levels = [self._pyramid(group) for group in strips.values()]

    def _pyramid(self, strips: list[Image.Image]) -> list[list[np.ndarray]]:
        """Resize the strips at every scale so that a crop is resolution x resolution pixels."""
        width = min(min(strip.size) for strip in strips)
        levels = []
        for scale in SCALES:
            factor = self.resolution / (width * scale)
            level = []
            for strip in strips:
                size = [max(self.resolution, round(side * factor)) for side in strip.size]
                level.append(np.asarray(strip.resize(size, Image.Resampling.LANCZOS)))
            levels.append(level)
        return levels

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return images uint8 [B, H, W, 3]; about 6 microseconds each at 32 px."""
        size = self.resolution
        if out is None:
            out = np.empty((len(indices), size, size, 3), np.uint8)
        for row, index in enumerate(indices.tolist()):
            position, label = divmod(index, len(self.class_names))
            level, strip, down, right = _uniforms(self._keys[label], position)
            strips = self._levels[label][int(level * len(SCALES))]
            pixels = strips[int(strip * len(strips))]
            y = int(down * (pixels.shape[0] - size + 1))
            x = int(right * (pixels.shape[1] - size + 1))
            out[row] = pixels[y : y + size, x : x + size]
        return out

    def describe(self) -> Description:
        """Return the protocol; the hash covers the source pixels of this split and their cuts."""
        crop = f"random, {SCALES[-1]:g} to {SCALES[0]:g} of the strip"
        made = {"crop": crop, "filter": "lanczos", "resolution": self.resolution}
        return description(self, made, self._sha256)
