"""Beyond one number: FID at infinitely many samples, distances class by class."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hamgan.evaluation.metrics import SHUFFLE_SEED, Moments, frechet_distance

POINTS = 15
SMALLEST = 5_000


@dataclass(frozen=True)
class Extrapolation:
    """FID against the number of samples: the points, and the line through them at 1 / N = 0."""

    counts: list[int]
    distances: list[float]
    at_infinity: float
    residual: float
    """Root mean square distance of the points from the line, in units of FID."""


def fid_at_infinity(
    features: Tensor, mean: Tensor, covariance: Tensor, points: int = POINTS, smallest: int = SMALLEST
) -> Extrapolation:
    """FID_inf (Chong & Forsyth 2020): FID is linear in 1 / N, so a line through several N gives the unbiased value.

    Shapes: sample features [N, D], the reference's mean [D] and covariance [D, D]. The subsets are nested parts of one
    random order: every feature enters the sums once. Sizes go from `smallest` (at most half of N) to N in even steps.
    """
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(features))
    counts = np.linspace(min(smallest, len(features) // 2), len(features), points).round().astype(int)
    sums, start, distances = Moments(features.shape[1]), 0, []
    for count in counts:
        for part in torch.from_numpy(order[start:count]).split(4096):
            sums.update(features[part])
        start = count
        distances.append(frechet_distance(mean, covariance, *sums.mean_and_covariance()))
    slope, at_infinity = np.polyfit(1.0 / counts, distances, 1)
    residual = np.sqrt(np.mean((slope / counts + at_infinity - distances) ** 2))
    return Extrapolation(counts.tolist(), distances, float(at_infinity), float(residual))


@dataclass(frozen=True)
class ClassDistance:
    """How far a class's generated mean feature is from the real one."""

    index: int
    samples: int
    reference: int
    distance: float | None
    """Unbiased estimate of the squared distance of the means; None with fewer than two images on a side."""


def class_distances(
    features: Tensor, labels: Tensor, reference: Tensor, reference_labels: Tensor, classes: int
) -> list[ClassDistance]:
    """For every class the squared distance |m1 - m2|² of the mean features, less what finite samples add to it.

    Shapes: features [N, D] and [M, D], class indices [N] and [M]. tr(C1) / n1 + tr(C2) / n2 is taken off, so that
    classes with few images can be compared with others; small values may therefore be negative.
    """
    count_1, mean_1, spread_1 = _class_moments(features, labels, classes)
    count_2, mean_2, spread_2 = _class_moments(reference, reference_labels, classes)
    squared = ((mean_1 - mean_2) ** 2).sum(1) - spread_1 / count_1 - spread_2 / count_2
    return [
        ClassDistance(
            index,
            int(count_1[index]),
            int(count_2[index]),
            float(squared[index]) if min(count_1[index], count_2[index]) >= 2 else None,
        )
        for index in range(classes)
    ]


def _class_moments(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Count [C], mean [C, D] and trace of the unbiased covariance [C] of every class, float64."""
    rows = features.double()
    count = torch.bincount(labels, minlength=classes).double()
    mean = torch.zeros(classes, rows.shape[1], dtype=torch.float64).index_add_(0, labels, rows) / count[:, None]
    squares = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, ((rows - mean[labels]) ** 2).sum(1))
    return count, mean, squares / (count - 1)
