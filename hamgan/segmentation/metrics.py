"""Count a confusion matrix, and compute mIoU, mAcc and aAcc from it.

The definition is MMSegmentation's, which the published figures follow: pixels with an ignored label do not count,
counts are summed over the whole data set, and a class that neither occurs nor is predicted is left out of the means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hamgan.distributed.group import Processes
from hamgan.files import JsonObject


class ConfusionMatrix:
    """Count pixels in int64 [classes, classes], with labels as rows and predictions as columns.

    Integer counts make the result independent of batches, order and processes.
    """

    def __init__(self, classes: int, ignore_label: int = 255) -> None:
        self.classes, self.ignore_label = classes, ignore_label
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def add(self, predictions: Tensor, labels: Tensor) -> None:
        """Add the pixels of integer maps of one shape; predictions must be classes where labels are not ignored."""
        valid = labels != self.ignore_label
        pairs = labels[valid].long() * self.classes + predictions[valid].long()
        counts = torch.bincount(pairs, minlength=self.classes**2)
        self.counts += counts.reshape(self.classes, self.classes).cpu()

    def sum_over(self, processes: Processes) -> None:
        """Replace the counts by their sum over all processes, which must all call this."""
        processes.sum_(self.counts)

    def scores(self) -> "Scores":
        """Return the scores of the counts so far."""
        return Scores(self.counts.numpy().copy())


@dataclass(frozen=True)
class Scores:
    """Hold a confusion matrix int64 [labels, predictions], and compute its scores in float64, 0 to 1.

    The IoU of a class that neither occurs nor is predicted, and the accuracy of one that does not occur, are NaN.
    """

    counts: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """Return the intersection over the union of each class [classes]."""
        hits = np.diagonal(self.counts)
        return _ratio(hits, self.counts.sum(0) + self.counts.sum(1) - hits)

    @property
    def accuracy(self) -> np.ndarray:
        """Return the share of correctly predicted pixels of each class [classes]."""
        return _ratio(np.diagonal(self.counts), self.counts.sum(1))

    @property
    def miou(self) -> float:
        """Return the mean IoU of the classes; NaN if no pixel was counted."""
        return _mean(self.iou)

    @property
    def macc(self) -> float:
        """Return the mean accuracy of the classes; NaN if no pixel was counted."""
        return _mean(self.accuracy)

    @property
    def aacc(self) -> float:
        """Return the share of correctly predicted pixels; NaN if none was counted."""
        return float(_ratio(np.trace(self.counts), self.counts.sum()))

    @property
    def pixels(self) -> int:
        """Return the number of pixels counted."""
        return int(self.counts.sum())

    def numbers(self) -> dict[str, float]:
        """Return the three scores by their names in rows of results."""
        return {"miou": self.miou, "macc": self.macc, "aacc": self.aacc}

    def by_class(self, names: Sequence[str]) -> list[JsonObject]:
        """Return a row per class: its name, IoU and accuracy (None where it has none) and its share of the labels."""
        shares = _ratio(self.counts.sum(1), self.counts.sum())
        rows = zip(names, self.iou.tolist(), self.accuracy.tolist(), shares.tolist(), strict=True)
        return [
            {"class": name, "iou": _or_none(iou), "accuracy": _or_none(accuracy), "share": _or_none(share)}
            for name, iou, accuracy, share in rows
        ]


def _ratio(part: Any, whole: Any) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # 0 / 0 is meant to be NaN
        return np.asarray(np.true_divide(part, whole))


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
