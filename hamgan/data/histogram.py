"""Describe the numbers of images per class in a few lines for the start of a run."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

LISTED = 12
"""Up to this many classes are listed individually."""
BINS = 6
BAR = 30


def histogram_lines(class_names: Sequence[str], counts: np.ndarray) -> list[str]:
    """Return one line with all classes if there are few, else the smallest, the largest and a histogram of sizes.

    ``counts`` are the images per class, int64 [classes], none of them 0.
    """
    low, high = int(counts.min()), int(counts.max())
    names = [name if len(name) <= 24 else f"{name[:23]}…" for name in class_names]
    if len(counts) <= LISTED:
        if low == high:
            return [f"{', '.join(names)}: {low:,} images each"]
        return [", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))]
    if low == high:
        return [f"{len(counts):,} of {low:,} images each"]
    smallest, largest = names[int(np.argmin(counts))], names[int(np.argmax(counts))]
    first = f"{low:,} ({smallest}) to {high:,} ({largest}) images, median {np.median(counts):,.0f}"
    return [first, *_bars(counts, low, high)]


def _bars(counts: np.ndarray, low: int, high: int) -> list[str]:
    # Sizes of uncurated classes span orders of magnitude.
    edges = np.unique(np.geomspace(low, high + 1, BINS + 1).round().astype(int))
    found = np.histogram(counts, edges)[0]
    ranges = [f"{a:,}" if a == b - 1 else f"{a:,} to {b - 1:,}" for a, b in pairwise(edges)]
    width = max(map(len, ranges))
    bars = ["#" * int(np.ceil(BAR * classes / found.max())) for classes in found]
    return [
        f"{sizes:>{width}} images: {classes:>6,} classes {bar}".rstrip()
        for sizes, classes, bar in zip(ranges, found.tolist(), bars, strict=True)
    ]
