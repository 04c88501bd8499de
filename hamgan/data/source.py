"""Define the interface of image sources, and refuse sources that a conditional GAN cannot learn from."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from hamgan.errors import DataError

SPLITS = ("train", "val")

Description = dict[str, Any]
"""Origin and preparation of images as plain JSON values, for the protocols of evaluations."""


class ImageSource(Protocol):
    """Give random access to labelled square images; image i is a pure function of i."""

    name: str
    split: str
    resolution: int
    class_names: list[str]
    labels: np.ndarray
    """int64 [N]."""

    def __len__(self) -> int:
        """Return the number of images, N."""

    def read(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return images uint8 [B, H, W, 3] at int64 indices [B], written to ``out`` if given."""

    def describe(self) -> Description:
        """Return the protocol of the images, with a sha256."""


@runtime_checkable
class ReadsAhead(Protocol):
    """Describe a source that can read ahead."""

    def expect(self, indices: np.ndarray) -> None:
        """Start to read the images at int64 indices [B] in the background."""


def description(source: ImageSource, preparation: Description, sha256: str) -> Description:
    """Describe a source by its counts, the preparation of its images, and a hash."""
    counts = {"split": source.split, "count": len(source), "classes": len(source.class_names)}
    return {"source": source.name, **counts, **preparation, "sha256": sha256}


def class_histogram(source: ImageSource) -> np.ndarray:
    """Count the images per class, int64 [classes]."""
    return np.bincount(source.labels, minlength=len(source.class_names)).astype(np.int64)


def name_some(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, separated by commas, and dots if there are more."""
    return ", ".join(f"`{name}`" for name in names[:most]) + (", ..." if len(names) > most else "")


def check_source(source: ImageSource) -> None:
    """Raise DataError unless a class-conditional GAN can learn from the source.

    Refused are no images, one class only, and a class without images. A single label for all images caused a collapse
    that was reported for BigGAN-PyTorch.
    """
    counts = class_histogram(source)
    where = f"{source.name} ({source.split})"
    if len(source) == 0:
        raise DataError(f"{where} holds no images")
    used = np.flatnonzero(counts)
    if len(used) == 1:
        name = source.class_names[used[0]]
        raise DataError(
            f"{where} has one class only: all {len(source)} images are `{name}`; a conditional model needs two or more"
        )
    if empty := [source.class_names[i] for i in np.flatnonzero(counts == 0)]:
        raise DataError(
            f"{where}: {len(empty)} of {len(counts)} classes have no images ({name_some(empty)}); remove or fill them"
        )
