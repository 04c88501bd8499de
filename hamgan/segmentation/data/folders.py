"""Read image and label files, checked against each other before the first step."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from hamgan.data.decoding.colours import to_eight_bits
from hamgan.data.decoding.decode import orientation
from hamgan.data.source import Description
from hamgan.errors import DataError, PictureError, one_line
from hamgan.segmentation.data.layouts import Pair, list_pairs
from hamgan.segmentation.data.source import Classes, Sample, apply_table
from hamgan.segmentation.schema import DataConfig

T = TypeVar("T")

THREADS = 16
PACKING = np.asarray([1 << 16, 1 << 8, 1])
"""Weights whose product with a colour [3] is one number."""
GIVE_COLOURS = (
    "give every class its colour in the file of classes, or, where values are meant, write label maps of one channel"
)


class FolderSource:
    """Read the pairs of one split of a folder, decoding on every read; sizes are compared when it is opened."""

    def __init__(self, source: str, split: str, data: DataConfig) -> None:
        root = Path(source).expanduser()
        listing = list_pairs(root, split, data)
        self.name, self.split, self.layout = str(source), split, listing.layout
        self.pairs = listing.pairs
        self.class_names, self.palette = listing.classes.names, listing.classes.palette
        self._classes, self._table = listing.classes, listing.classes.table()
        self._check_sizes()

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> Sample:
        """Return one sample; DataError for unreadable files and for values that are no class."""
        pair = self.pairs[index]
        raw, where = read_labels(pair.labels), str(pair.labels)
        if raw.ndim == 3 and not self._classes.by_colour:
            raw = grey_values(raw, where)
        if raw.ndim == 3:
            labels = by_colour(raw, self._classes, where)
        else:
            labels = apply_table(raw, self._table, self.class_names, where)
        return Sample(_read_image(pair, labels.shape[::-1]), labels)

    def key(self, index: int) -> str:
        """Return the path of an image in its folder, without the extension."""
        return self.pairs[index].key

    def describe(self) -> Description:
        """Return the origin; the hash covers names and sizes of the files, not their pixels."""
        digest = hashlib.sha256()
        for pair in self.pairs:
            digest.update(f"{pair.key} {pair.image.stat().st_size} {pair.labels.stat().st_size}\n".encode())
        counts = {"split": self.split, "count": len(self), "classes": len(self.class_names)}
        return {"source": self.name, "layout": self.layout, **counts, "sha256": digest.hexdigest()}

    def _check_sizes(self) -> None:
        """Raise DataError if label maps have another size than their images; reads only headers."""
        with ThreadPoolExecutor(THREADS, "sizes") as pool:
            wrong = [found for found in pool.map(_describe_size_mismatch, self.pairs) if found]
        if wrong:
            raise DataError(
                f"{len(wrong):,} of {len(self.pairs):,} label maps in {self.name} have another size than their image: "
                f"{wrong[0]}"
            )


def _describe_size_mismatch(pair: Pair) -> str | None:
    """Return a description of different sizes in the headers of a pair, or None; arrays are checked when read."""
    if pair.labels.suffix in (".npy", ".mat"):
        return None
    with _read(pair.labels, Image.open) as labels, _read(pair.image, Image.open) as image:
        if labels.size in (image.size, _shown_size(image)):
            return None
        return _sizes(pair, _shown_size(image), labels.size)


def _sizes(pair: Pair, image: tuple[int, ...], labels: tuple[int, ...]) -> str:
    return f"{pair.labels} is {labels[0]} x {labels[1]}, its image {image[0]} x {image[1]}"


def _shown_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of a picture after its EXIF orientation."""
    return image.size[::-1] if orientation(image) >= 5 else image.size


def _read_image(pair: Pair, size: tuple[int, ...]) -> np.ndarray:
    """Return an image uint8 [H, W, 3] with its EXIF orientation applied, or as stored if that matches the labels."""

    def read(path: Path) -> np.ndarray:
        with Image.open(path) as stored:
            if size not in (stored.size, _shown_size(stored)):
                raise DataError(_sizes(pair, _shown_size(stored), size))
            image = ImageOps.exif_transpose(stored) if _shown_size(stored) == size else stored
            return rgb_pixels(image)

    return _read(pair.image, read)


def rgb_pixels(image: Image.Image) -> np.ndarray:
    """Return the pixels of a picture, uint8 [H, W, 3]; PictureError if they are not finite.

    Deeper grey is scaled to 8 bits. Colour profiles and transparency are ignored, as in the references.
    """
    return np.asarray((to_eight_bits(image) if image.mode[0] in "IF" else image).convert("RGB"))


def read_labels(path: Path) -> np.ndarray:
    """Return raw label values [H, W], or uint8 [H, W, 3] for a file with three channels."""
    if path.suffix == ".npy":
        return _whole(_read(path, lambda path: np.load(path, allow_pickle=False)), path)
    if path.suffix == ".mat":
        return _whole(_read(path, _read_mat), path)
    image: Image.Image = _read(path, Image.open)
    _read(path, lambda _: image.load())
    if image.mode in ("RGBA", "LA", "PA", "CMYK"):
        image = image.convert("L" if image.mode == "LA" else "RGB")
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else _whole(pixels, path)


def _read_mat(path: Path) -> np.ndarray:
    from scipy.io import loadmat  # comes with scikit-image

    return np.asarray(loadmat(path)["LabelMap"])


def _whole(values: np.ndarray, path: Path) -> np.ndarray:
    if values.ndim != 2 or values.dtype.kind not in "iub" or (values.size and values.min() < 0):
        raise DataError(
            f"{path} must hold whole numbers [height, width], from 0 on; it holds {values.dtype} {list(values.shape)}"
        )
    return values.astype(np.uint8) if values.dtype == bool else values


def grey_values(channels: np.ndarray, where: str) -> np.ndarray:
    """Return the values [H, W] of three equal channels [H, W, 3]; DataError if they differ."""
    if (channels != channels[..., :1]).any():
        raise DataError(f"{where} is a colour picture; {GIVE_COLOURS}")
    return channels[..., 0]


def by_colour(colours: np.ndarray, classes: Classes, where: str) -> np.ndarray:
    """Return labels uint8 [H, W] for colours [H, W, 3] that are exactly those of classes; black is ignored."""
    packed = colours.astype(np.int64) @ PACKING
    known = {int(code): number for number, code in enumerate(classes.palette.astype(np.int64) @ PACKING)}
    found, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    unknown = [
        (int(count), int(code)) for code, count in zip(found, counts, strict=True) if int(code) not in known and code
    ]
    if len(known) < len(classes.names):
        raise DataError(f"{where} is a colour picture, and the file of classes gives a colour to several classes")
    if unknown:
        count, code = max(unknown)
        raise DataError(
            f"{where} is a colour picture, and {len(unknown):,} of its colours are no class, such as "
            f"{[code >> 16, code >> 8 & 255, code & 255]} in {count:,} pixels; {GIVE_COLOURS}"
        )
    return np.asarray([known.get(int(code), 255) for code in found], np.uint8)[inverse].reshape(packed.shape)


def _read(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except PictureError as error:
        raise DataError(f"{path} {error}") from error
    except DataError:
        raise
    except (OSError, ValueError, KeyError, Image.DecompressionBombError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read: {one_line(error)}") from error
