"""Read HDF5 files as BigGAN-PyTorch and StudioGAN write them: ``imgs`` uint8 [N, 3, H, W] and ``labels`` [N]."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hamgan.data.finding.picture import Listing, Picture
from hamgan.errors import DataError, one_line
from hamgan.files import file_version

MAGIC = b"\x89HDF\r\n\x1a\n"
CACHE_BYTES = 64 << 20
"""Cache for decompressed chunks of a file; one chunk has 500 images, 25 MB at 128 px."""


def is_hdf5(path: Path) -> bool:
    """Return whether a file is HDF5, by its first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def list_hdf5(path: Path) -> Listing:
    """List the rows of a file, all as the train split; the classes are its labels, in ascending order."""
    labels = np.asarray(_open(str(path), file_version(path))["labels"])
    used = np.flatnonzero(labels >= 0)
    numbers, classes = np.unique(labels[used], return_inverse=True)
    pictures = [
        Picture(f"{path.name}/{row:08d}", label, ("row", str(path), "train", row))
        for row, label in zip(used.tolist(), classes.tolist(), strict=True)
    ]
    pictures.sort(key=lambda picture: picture.label)
    names = [str(number) for number in numbers]
    return Listing(names, {"train": pictures, "val": []}, unclassed=len(labels) - len(used), has_splits=False)


def read_hdf5(path: str, row: int) -> bytes:
    """Read the image of a row, as PPM."""
    pixels: np.ndarray = _open(path, file_version(path))["imgs"][row].transpose(1, 2, 0)
    height, width, _ = pixels.shape
    return b"P6 %d %d 255\n" % (width, height) + pixels.tobytes()


@lru_cache(maxsize=2)
def _open(path: str, version: tuple[int, ...]) -> Any:
    """Open a file for reading by rows; raises DataError for other contents or if h5py is missing."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{path} is an HDF5 file, which needs h5py: pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            _check(path, file)
            # Without compression single rows can be read; a large cache would read their whole chunks.
            options = {"rdcc_nbytes": CACHE_BYTES} if file["imgs"].compression else {}
        return h5py.File(path, "r", **options)
    except OSError as error:
        raise DataError(f"{path} is a damaged HDF5 file ({one_line(error)})") from error


def _check(path: str, file: Any) -> None:
    arrays = {name: value for name, value in file.items() if hasattr(value, "dtype")}
    if {"imgs", "labels"} <= set(arrays):
        images, labels = arrays["imgs"], arrays["labels"]
        whole_numbers = labels.shape == images.shape[:1] and labels.dtype.kind in "iu"
        if images.dtype == np.uint8 and images.ndim == 4 and images.shape[1] == 3 and whole_numbers:
            return
    found = ", ".join(f"{name} {value.dtype} {list(value.shape)}" for name, value in arrays.items())
    raise DataError(
        f"{path} must hold imgs, uint8 [N, 3, H, W], and labels, whole numbers [N]; it has {found or 'no arrays'}"
    )
