"""Count a confusion matrix and read from it what segmentation papers report: mIoU, mAcc and aAcc.

The definition is MMSegmentation's, which the published figures follow: pixels whose label is ignored count nowhere,
counts are summed over the whole data set, and a class that neither occurs nor is predicted is left out of the means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hamgan.distributed.group import Processes


class ConfusionMatrix:
    """Add up pixels in int64 [classes, classes], rows by the label and columns by the prediction.

    Integers make the result independent of batches, order and processes.
    """

    def __init__(self, classes: int, ignore_label: int = 255) -> None:
        self.classes, self.ignore_label = classes, ignore_label
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def add(self, predictions: Tensor, labels: Tensor) -> None:
        """Count the pixels of integer maps of one shape; predictions are classes wherever a label is not ignored."""
        valid = labels != self.ignore_label
        pairs = labels[valid].long() * self.classes + predictions[valid].long()
        counts = torch.bincount(pairs, minlength=self.classes**2)
        self.counts += counts.reshape(self.classes, self.classes).cpu()

    def sum_over(self, processes: Processes) -> None:
        """Replace the counts by their sum over all processes, which must all call this."""
        processes.sum_(self.counts)

    def scores(self) -> "Scores":
        """Return what the counts say so far."""
        return Scores(self.counts.numpy().copy())


@dataclass(frozen=True)
class Scores:
    """Hold a confusion matrix int64 [labels, predictions], and compute its scores in float64, 0 to 1.

    A class without a pixel in label or prediction has no IoU, one without a label no accuracy: NaN.
    """

    counts: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """Return the intersection over the union of each class [classes]."""
        hits = np.diagonal(self.counts)
        return _ratio(hits, self.counts.sum(0) + self.counts.sum(1) - hits)

    @property
    def accuracy(self) -> np.ndarray:
        """Return the share of the pixels of each class that are recognised [classes]."""
        return _ratio(np.diagonal(self.counts), self.counts.sum(1))

    @property
    def miou(self) -> float:
        """Return the mean of the classes' IoUs; NaN where no pixel was counted."""
        return _mean(self.iou)

    @property
    def macc(self) -> float:
        """Return the mean of the classes' accuracies; NaN where no pixel was counted."""
        return _mean(self.accuracy)

    @property
    def aacc(self) -> float:
        """Return the share of all pixels that are recognised; NaN where none was counted."""
        return float(_ratio(np.trace(self.counts), self.counts.sum()))

    @property
    def pixels(self) -> int:
        """Return the number of pixels counted."""
        return int(self.counts.sum())

    def numbers(self) -> dict[str, float]:
        """Return the three scores by the names that rows of results have."""
        return {"miou": self.miou, "macc": self.macc, "aacc": self.aacc}

    def by_class(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return a row per class: its name, IoU and accuracy (None where it has none) and its share of the labels."""
        shares = _ratio(self.counts.sum(1), self.counts.sum())
        rows = zip(names, self.iou.tolist(), self.accuracy.tolist(), shares.tolist(), strict=True)
        return [
            {"class": name, "iou": _or_none(iou), "accuracy": _or_none(accuracy), "share": _or_none(share)}
            for name, iou, accuracy, share in rows
        ]


def _ratio(part: Any, whole: Any) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as it should be
        return np.asarray(np.true_divide(part, whole))


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
