"""Make mosaics of scikit-image's textures and photographs with exact masks: a data set without a download.

An image is a Voronoi diagram of random points; every cell is filled with a crop of one of the classes of
`hamgan.data.photos`, whose train and held-out crops come from different strips. Borders between cells are ignored, so
an mIoU of 1 is possible, and classes can be recognised by texture only.
"""

import zlib

import numpy as np

from hamgan.data.photos import IMAGES_PER_CLASS, PhotoSource
from hamgan.data.source import SPLITS, Description
from hamgan.errors import DataError
from hamgan.segmentation.data.source import IGNORED, Sample, make_palette

SIZE = 128
COUNTS = {"train": 10_000, "val": 1_000}
CELLS = range(3, 9)
BORDER = 1
"""Ignored pixels on either side of a border."""


class MosaicSource:
    """Make mosaics of SIZE pixels; each is a function of split and index."""

    def __init__(self, split: str) -> None:
        if split not in SPLITS:
            raise DataError(f"unknown split `{split}`; allowed: {', '.join(SPLITS)}")
        self._photos = PhotoSource(split, SIZE)
        self.name, self.split = "mosaic", split
        self.class_names = self._photos.class_names
        self.palette = make_palette(len(self.class_names))

    def __len__(self) -> int:
        return COUNTS[self.split]

    def read(self, index: int) -> Sample:
        """Return one mosaic [SIZE, SIZE]; two cells may have the same class."""
        # RandomState's stream is frozen for good (NEP 19).
        random = np.random.RandomState([zlib.crc32(self.split.encode()), index])
        classes = len(self.class_names)
        chosen = random.randint(classes, size=random.randint(CELLS.start, CELLS.stop))
        seeds = random.uniform(0, SIZE, (len(chosen), 2))
        crops = self._photos.read(classes * random.randint(IMAGES_PER_CLASS[self.split], size=len(chosen)) + chosen)
        positions = np.moveaxis(np.mgrid[:SIZE, :SIZE], 0, -1) + 0.5
        cells = np.square(positions[:, :, None] - seeds).sum(-1).argmin(-1)
        image = np.take_along_axis(crops, cells[None, :, :, None], 0)[0]
        labels = chosen[cells].astype(np.uint8)
        labels[_near_border(labels)] = IGNORED
        return Sample(image, labels)

    def key(self, index: int) -> str:
        """Return the index with the split."""
        return f"{self.split}_{index:05d}"

    def describe(self) -> Description:
        """Return the origin, with that of the photographs."""
        made = {"split": self.split, "count": len(self), "classes": len(self.class_names), "size": SIZE}
        return {"source": self.name, **made, "photos": self._photos.describe()}


def _near_border(labels: np.ndarray) -> np.ndarray:
    """Return which pixels [H, W] have another class within `BORDER` pixels up, down, left or right."""
    near = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        moved = labels if axis == 0 else labels.T
        found = near if axis == 0 else near.T  # views: writing into them writes into near
        for distance in range(1, BORDER + 1):
            differs = moved[distance:] != moved[:-distance]
            found[distance:] |= differs
            found[:-distance] |= differs
    return near
