"""What a row, a table and a picture say of the classes."""

import textwrap
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from hamgan.evaluation.metrics.per_class import ByClass
from hamgan.evaluation.report import save_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

EXTREMES = 5
"""Best and worst classes, and pairs of them, that a row names."""
LARGEST_PICTURE = 40
"""Classes in a picture of the confusions: the names of more cannot be read."""
NUMBERED = 16
"""Classes up to which the picture's cells carry their numbers."""


def class_numbers(classes: ByClass, names: list[str]) -> dict[str, Any]:
    """Averages over the classes, the extremes by name, and the tables `class_table` and `class_confusions`."""
    nearest, alike = _in_order(classes.distance), _in_order(classes.diversity)
    return {
        "class_distance": _mean(classes.distance, classes),
        "class_diversity": _mean(classes.diversity, classes),
        "class_leakage": _mean(classes.leakage, classes),
        "class_leakage_real": _mean(classes.leakage_real, classes),
        "best_classes": [f"{names[index]} {classes.distance[index]:.4g}" for index in nearest[:EXTREMES]],
        "worst_classes": [f"{names[index]} {classes.distance[index]:.4g}" for index in nearest[: -EXTREMES - 1 : -1]],
        "least_diverse_classes": [f"{names[index]} {classes.diversity[index]:.3g}" for index in alike[:EXTREMES]],
        "most_confused_classes": _most_confused(classes, names),
        "class_table": _class_table(classes, names),
        "class_confusions": _confusions(classes, names),
    }


def _mean(figures: Tensor, classes: ByClass) -> float:
    return float(figures[classes.known].nanmean())


def _in_order(figures: Tensor) -> list[int]:
    """Indices of the classes that have a figure, the smallest first."""
    return [index for index in figures.argsort().tolist() if figures[index].isfinite()]


def _most_confused(classes: ByClass, names: list[str]) -> list[str]:
    """The pairs of classes that samples mix up most beyond what the classifier mixes up among real images."""
    excess = (classes.confusion - classes.confusion_real).nan_to_num(0.0).fill_diagonal_(0.0)
    found = []
    for position in excess.flatten().topk(min(EXTREMES, excess.numel())).indices.tolist():
        row, column = divmod(position, len(names))
        share, usual = classes.confusion[row, column], classes.confusion_real[row, column]
        if share > usual:
            found.append(f"{names[row]} as {names[column]} {share:.1%} (real images {usual:.1%})")
    return found


def _class_table(classes: ByClass, names: list[str]) -> list[dict[str, Any]]:
    columns = {
        "samples": classes.samples,
        "reference": classes.reference,
        "distance": classes.distance,
        "diversity": classes.diversity,
        "leakage": classes.leakage,
        "leakage_real": classes.leakage_real,
    }
    rows = zip(*(_plain(values) for values in columns.values()), strict=True)
    return [{"class": name} | dict(zip(columns, row, strict=True)) for name, row in zip(names, rows, strict=True)]


def _plain(values: Tensor) -> list[float | None]:
    """Values for a table, None where there is none: JSON has no NaN."""
    return [value if isfinite(value) else None for value in values.tolist()]


def _confusions(classes: ByClass, names: list[str]) -> list[dict[str, Any]]:
    """The entries of both matrices that are not zero: of a million pairs of ImageNet's classes few occur."""
    generated, real = classes.confusion.nan_to_num(0.0), classes.confusion_real.nan_to_num(0.0)
    return [
        {
            "class": names[row],
            "taken_for": names[column],
            "share": float(generated[row, column]),
            "share_real": float(real[row, column]),
        }
        for row, column in ((generated > 0) | (real > 0)).nonzero().tolist()
    ]


def save_confusions(confusions: Sequence[dict[str, Any]], names: Sequence[str], file: Path, below: str) -> list[Path]:
    """Draw which classes samples and real images are taken for (PNG) and write all pairs beside it (CSV).

    Of many classes those are drawn that samples mix up most. ``below`` is the protocol; returns both paths.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    _draw(confusions, _most_involved(confusions, names), len(names), file, below)
    return [file, save_table(confusions, file.with_suffix(".csv"))]


def _most_involved(confusions: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """The classes to draw, in their own order."""
    if len(names) <= LARGEST_PICTURE:
        return list(names)
    pairs = [row for row in confusions if row["class"] != row["taken_for"]]
    kept: dict[str, None] = {}
    for row in sorted(pairs, key=lambda row: row["share_real"] - row["share"]):
        kept |= dict.fromkeys((row["class"], row["taken_for"]))
    chosen = set([*kept, *names][:LARGEST_PICTURE])
    return [name for name in names if name in chosen]


def _draw(confusions: Sequence[dict[str, Any]], names: list[str], classes: int, file: Path, below: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    index_of = {name: index for index, name in enumerate(names)}
    matrices = np.zeros((2, len(names), len(names)))
    for row in confusions:
        if row["class"] in index_of and row["taken_for"] in index_of:
            matrices[:, index_of[row["class"]], index_of[row["taken_for"]]] = row["share"], row["share_real"]
    side = 2 + 0.35 * max(8, len(names))
    figure, both = pyplot.subplots(1, 2, figsize=(2 * side, side), layout="constrained", sharey=True)
    for axes, matrix, title in zip(both, matrices, ("generated images", "real images"), strict=True):
        picture = _draw_matrix(axes, matrix, names)
        axes.set_title(title)
        axes.set_xlabel("is taken for (nearest class mean)")
    both[0].set_ylabel("an image of this class")
    figure.colorbar(picture, ax=both, label="% of the class", shrink=0.6)
    left_out = f"{len(names)} of {classes:,} classes, those that are mixed up most. " if len(names) < classes else ""
    figure.supxlabel("\n".join(textwrap.wrap(left_out + below, 150)), fontsize=7, x=0.01, ha="left")
    figure.savefig(file, dpi=120)
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
