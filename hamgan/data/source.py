"""What a set of images is to the trainer (`ImageSource`), and `open_source`, which finds one by name or path."""

from typing import Any, Protocol, runtime_checkable

import numpy as np

from hamgan.errors import DataError

SPLITS = ("train", "val")


class ImageSource(Protocol):
    """Labelled square images with random access; image i is a pure function of i."""

    name: str
    split: str
    resolution: int
    class_names: list[str]
    labels: np.ndarray
    """int64 [N]."""

    def __len__(self) -> int:
        """Number of images, N."""

    def read(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Images uint8 [B, H, W, 3] at int64 indices [B], written to `out` where given."""

    def describe(self) -> dict[str, Any]:
        """Where the images come from and how they were made, as plain JSON values with a sha256."""


@runtime_checkable
class ReadsAhead(Protocol):
    """A source that can start reading images before they are asked for."""

    def expect(self, indices: np.ndarray) -> None:
        """Images at int64 indices [B] will be read soon."""


def class_histogram(source: ImageSource) -> np.ndarray:
    """Images per class, int64 [classes]."""
    return np.bincount(source.labels, minlength=len(source.class_names)).astype(np.int64)


def check_source(source: ImageSource, minimum: int = 2) -> None:
    """Raise DataError unless a class-conditional GAN can learn from the source.

    Refused: no images, one class only, a class without images, fewer than `minimum` images in all. A single label for
    all images is how a collapse reported against BigGAN-PyTorch came about.
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
    empty = [source.class_names[i] for i in np.flatnonzero(counts == 0)]
    if empty:
        listed = ", ".join(f"`{name}`" for name in empty[:5]) + (", ..." if len(empty) > 5 else "")
        raise DataError(
            f"{where}: {len(empty)} of {len(counts)} classes have no images ({listed}); remove or fill them"
        )
    if len(source) < minimum:
        raise DataError(f"{where} holds {len(source)} images of {len(used)} classes; at least {minimum} are needed")
