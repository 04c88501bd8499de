"""Define the interface of sources of labelled pictures, and map raw label values to classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from hamgan.data.source import Description, name_some
from hamgan.errors import DataError

IGNORED = 255
"""Label of ignored pixels, whatever value a data set uses for them."""
MOST_CLASSES = 255


class Sample(NamedTuple):
    """Hold a picture uint8 [H, W, 3] and its labels uint8 [H, W]: classes, or `IGNORED`."""

    image: np.ndarray
    labels: np.ndarray


class SegmentationSource(Protocol):
    """Give random access to labelled pictures of any size; sample i is a pure function of i."""

    name: str
    split: str
    class_names: list[str]
    palette: np.ndarray
    """Colours of the classes, uint8 [classes, 3]."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def read(self, index: int) -> Sample:
        """Return one sample; DataError if it cannot be used."""

    def key(self, index: int) -> str:
        """Return the name of a sample, such as its file name without the extension."""

    def describe(self) -> Description:
        """Return origin and preparation as plain values, for the protocol of an evaluation."""


@dataclass(frozen=True)
class Classes:
    """Hold the classes of a data set with their colours and raw label values."""

    names: list[str]
    palette: np.ndarray
    """uint8 [classes, 3]."""
    values: Mapping[int, int]
    """Raw value in a mask -> class, or `IGNORED`; other values are refused."""
    by_colour: bool = False
    """Whether masks with three channels are read by these colours; otherwise colours are only for drawing."""

    def table(self) -> np.ndarray:
        """Return int16 [largest raw value + 1]: class, `IGNORED`, or -1 for an unknown value."""
        table = np.full(max(max(self.values), IGNORED) + 1, -1, np.int16)
        for value, label in self.values.items():
            table[value] = label
        return table


def plain_classes(names: Sequence[str], palette: np.ndarray | None = None, *, first: int = 0) -> Classes:
    """Return classes with the raw values ``first``, ``first`` + 1, ...; 255, and 0 if ``first`` is 1, are ignored."""
    if not 0 < len(names) <= MOST_CLASSES:
        raise DataError(f"{len(names)} classes; allowed: 1 to {MOST_CLASSES}")
    values = {first + number: number for number in range(len(names))}
    ignored = {value: IGNORED for value in (*range(first), IGNORED) if value not in values}
    return Classes(list(names), make_palette(len(names)) if palette is None else palette, values | ignored)


def make_palette(classes: int) -> np.ndarray:
    """Return different colours uint8 [classes, 3] by the rule of PASCAL VOC, from the bits of the class number.

    Class 0 gets the first colour that is not black, which is for pixels without a class.
    """
    numbers = np.arange(1, classes + 1)
    colours = np.zeros((classes, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (numbers >> (3 * bit + channel) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def apply_table(raw: np.ndarray, table: np.ndarray, class_names: Sequence[str], where: str) -> np.ndarray:
    """Return labels uint8 [H, W] for raw values [H, W]; DataError lists unknown values with their pixel counts."""
    last = len(table) - 1
    mapped = table[np.minimum(raw, last)]
    # NumPy before 2.2.6 crashes if non-contiguous bytes are compared with a number above 255.
    unknown = (mapped < 0) | (raw > last)
    if unknown.any():
        values, counts = np.unique(raw[unknown], return_counts=True)
        worst = sorted(zip(counts.tolist(), values.tolist(), strict=True), reverse=True)[:3]
        found = ", ".join(f"{value} in {count:,} pixels" for count, value in worst)
        more = f" and {len(values) - 3} more values" if len(values) > 3 else ""
        raise DataError(
            f"{where} has values that are no class: {found}{more}; the {len(class_names)} classes "
            f"({name_some(class_names, 3)}) have {_ranges(np.flatnonzero(table >= 0).tolist())}"
        )
    return np.asarray(mapped, np.uint8)


def _ranges(values: Sequence[int]) -> str:
    """Format ascending numbers as ``0 to 7, 255``."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    words = [str(first) if first == last else f"{first} to {last}" for first, last in parts]
    return ", ".join(words[:6]) + (", ..." if len(words) > 6 else "")
