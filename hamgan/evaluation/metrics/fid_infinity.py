"""Beyond one number: FID at infinitely many samples."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hamgan.evaluation.metrics.fid import SHUFFLE_SEED, Moments, frechet_distance

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
