"""Extrapolate the FID to infinitely many samples (Chong & Forsyth 2020)."""

import numpy as np
import torch
from torch import Tensor

from hamgan.evaluation.metrics.fid import SHUFFLE_SEED, Moments, frechet_distance

POINTS = 15
SMALLEST = 5_000
FEWEST = 8
"""Least number of samples, for which all parts have a covariance and different sizes."""


def fid_at_infinity(features: Tensor, mean: Tensor, covariance: Tensor) -> tuple[float, float]:
    """Return FID_inf and the root mean square distance of the points from its line, in units of FID.

    FID is linear in 1 / N, so a line through several N gives the unbiased value at 1 / N = 0. The subsets are nested
    parts of one random order, so every feature is summed once; their sizes go from `SMALLEST` (at most half of N) to N
    in even steps.

    Shapes: sample features [N, D], the reference's mean [D] and covariance [D, D].
    """
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(features))
    counts = np.linspace(min(SMALLEST, len(features) // 2), len(features), POINTS).round().astype(int)
    sums, start, distances = Moments(features.shape[1], features.device), 0, []
    for count in counts:
        for part in torch.from_numpy(order[start:count]).split(4096):
            sums.update(features[part])
        start = count
        distances.append(frechet_distance(mean, covariance, *sums.mean_and_covariance()))
    slope, at_infinity = np.polyfit(1.0 / counts, distances, 1)
    residual = np.sqrt(np.mean((slope / counts + at_infinity - distances) ** 2))
    return float(at_infinity), float(residual)
