"""Read the embedded data set of the demo: photographs of clothes, shoes and bags, a part of Fashion-MNIST.

Fashion-MNIST (Xiao, Rasul and Vollgraf 2017; MIT licence, next to the files) has grey photographs of a shop's articles
at 28x28 pixels. The package contains the first 1,200 train and the first 120 test pictures of nine classes, in the
order of its files. Every picture shows a different article, so no article is in both splits. Its values are inverted;
here they are inverted back to dark on white, like the original photographs, with a border of two white pixels.
"""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from hamgan.data.source import Description, description
from hamgan.errors import DataError

FOLDER = Path(__file__).parent / "fashion_mnist"
# The tenth class, shirt, is left out: at this size it looks like coats and pullovers, to people and classifiers.
CLASSES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "sneaker", "bag", "ankle boot")
SIDE, RESOLUTION = 28, 32


class FashionSource:
    """Read 10,800 train or 1,080 held-out photographs of nine kinds of articles at 32 px, grey as RGB.

    The class of image i is ``i % 9``, so any prefix of a multiple of nine is balanced.
    """

    origin = "photographs of articles of a shop from Fashion-MNIST (MIT licence)"

    def __init__(self, split: str, resolution: int) -> None:
        if resolution != RESOLUTION:
            raise DataError(f"fashion at {resolution} px is not available; it has {RESOLUTION} px")
        self.name, self.split, self.resolution = "fashion", split, resolution
        self.class_names = list(CLASSES)
        images = _read_sheet(FOLDER / f"{split}.png")
        self._sha256 = hashlib.sha256(images.tobytes()).hexdigest()
        frame = (RESOLUTION - SIDE) // 2
        self._images = np.pad(images, ((0, 0), (frame, frame), (frame, frame)), constant_values=255)
        self.labels = np.arange(len(images), dtype=np.int64) % len(CLASSES)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return images uint8 [B, H, W, 3]."""
        if out is None:
            out = np.empty((len(indices), RESOLUTION, RESOLUTION, 3), np.uint8)
        out[:] = self._images[indices, :, :, None]
        return out

    def describe(self) -> Description:
        """Return the protocol; the hash covers every pixel."""
        return description(self, {"resolution": RESOLUTION, "frame": "white"}, self._sha256)


def _read_sheet(path: Path) -> np.ndarray:
    """Cut a sheet with one class after the other into images uint8 [N, 28, 28] whose classes alternate."""
    try:
        with Image.open(path) as image:
            sheet = np.asarray(image.convert("L"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); install hamgan anew") from error
    rows, columns = (side // SIDE for side in sheet.shape)
    images = sheet.reshape(rows, SIDE, columns, SIDE).transpose(0, 2, 1, 3).reshape(len(CLASSES), -1, SIDE, SIDE)
    return np.ascontiguousarray(images.transpose(1, 0, 2, 3).reshape(-1, SIDE, SIDE))
