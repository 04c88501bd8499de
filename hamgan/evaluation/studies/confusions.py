"""Draw confusion matrices of samples and of real images."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hamgan.evaluation.report import save_table
from hamgan.files import JsonObject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

LARGEST_PICTURE = 40
"""Largest number of classes in a picture, whose names are still legible."""
NUMBERED = 16
"""Largest number of classes for which the cells show their numbers."""


def save_confusions(confusions: Sequence[JsonObject], names: Sequence[str], file: Path, protocol: str) -> list[Path]:
    """Draw the confusion matrices of samples and of real images (PNG), and write all pairs as a table (CSV).

    If there are many classes, the most confused ones are drawn. ``protocol`` is printed below. Returns both paths.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    _draw(confusions, _most_involved(confusions, names), len(names), file, protocol)
    return [file, save_table(confusions, file.with_suffix(".csv"))]


def _most_involved(confusions: Sequence[JsonObject], names: Sequence[str]) -> list[str]:
    """Return the classes to draw, in their own order."""
    if len(names) <= LARGEST_PICTURE:
        return list(names)
    pairs = [row for row in confusions if row["class"] != row["taken_for"]]
    kept: dict[str, None] = {}
    for row in sorted(pairs, key=lambda row: row["share_real"] - row["share"]):
        kept |= dict.fromkeys((row["class"], row["taken_for"]))
    chosen = set([*kept, *names][:LARGEST_PICTURE])
    return [name for name in names if name in chosen]


def _draw(confusions: Sequence[JsonObject], names: list[str], classes: int, file: Path, protocol: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    index_of = {name: index for index, name in enumerate(names)}
    matrices = np.zeros((2, len(names), len(names)))
    for row in confusions:
        if row["class"] in index_of and row["taken_for"] in index_of:
            matrices[:, index_of[row["class"]], index_of[row["taken_for"]]] = row["share"], row["share_real"]
    side = 3 + 0.35 * max(8, len(names))
    figure, both = pyplot.subplots(1, 2, figsize=(2 * side, side), layout="constrained", sharey=True)
    for axes, matrix, title in zip(both, matrices, ("generated images", "real images"), strict=True):
        picture = _draw_matrix(axes, matrix, names)
        axes.set_title(title)
        axes.set_xlabel("is taken for (nearest class mean)")
    both[0].set_ylabel("an image of this class")
    figure.colorbar(picture, ax=both, label="% of the class", shrink=0.6)
    left_out = f"{len(names)} of {classes:,} classes, those that are mixed up most. " if len(names) < classes else ""
    lines = textwrap.wrap(left_out + protocol, int(16 * figure.get_figwidth()))
    # Below the laid-out axes; the tight bounding box makes room for it and for titles wider than a small matrix.
    figure.text(0.01, -0.2 / figure.get_figheight(), "\n".join(lines), fontsize=7, va="top")
    figure.savefig(file, dpi=150, bbox_inches="tight", pad_inches=0.15)
    pyplot.close(figure)


def _draw_matrix(axes: "Axes", matrix: np.ndarray, names: list[str]) -> "AxesImage":
    picture = axes.imshow(100 * matrix, vmin=0, vmax=100, cmap="Blues")
    axes.set_xticks(range(len(names)), [name[:24] for name in names], rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), [name[:24] for name in names], fontsize=8)
    shown = np.argwhere(matrix >= 0.005).tolist() if len(names) <= NUMBERED else []
    for row, column in shown:
        share = matrix[row, column]
        colour = "white" if share > 0.5 else "black"
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    return picture
