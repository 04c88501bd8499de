"""Estimate the standard error of metrics over samples of a generator, from one set of samples.

The bootstrap draws samples with replacement. Duplicates have distance 0 and shrink covariances, which distorts
distances between neighbours and FID. So the samples are halved at random instead (the delete-half jackknife of Shao &
Wu 1989): half the difference between the metrics of both halves has, to first order, the standard error of the metric
of all samples, and the bias of the smaller count cancels.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hamgan.distributed.group import Processes
from hamgan.evaluation.metrics.fid import SHUFFLE_SEED, Moments
from hamgan.evaluation.statistics import FeatureStatistics

RESAMPLED = ("fid", "kid", "prc", "density_coverage", "mind", "cmmd")
"""Metrics whose standard error is estimated; the Inception Score has its spread over splits."""


def halves(count: int, resamples: int, stream: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield indices of two disjoint halves of ``count`` samples, ``resamples`` times; the same on every process.

    Different ``stream`` numbers give independent halves.
    """
    for resample in range(resamples):
        order = torch.from_numpy(np.random.RandomState([SHUFFLE_SEED, resample, stream]).permutation(count))
        yield order[: count // 2], order[count // 2 : 2 * (count // 2)]


def take(statistics: FeatureStatistics, indices: Tensor, device: torch.device) -> FeatureStatistics:
    """Return the statistics of a part of the samples; only the main process has moments, summed on the device."""
    features = statistics.kept_features[indices]
    mean, covariance = statistics.mean, statistics.covariance
    if Processes.current().is_main:
        moments = Moments(features.shape[1], torch.device("cpu") if device.type == "mps" else device)
        for part in features.split(4096):
            moments.update(part)
        mean, covariance = moments.mean_and_covariance()
    return replace(
        statistics,
        count=len(indices),
        mean=mean,
        covariance=covariance,
        features=features,
        labels=None if statistics.labels is None else statistics.labels[indices],
        description=statistics.description | {"hash": None},
        inception_score=None,
    )


def half_differences(
    found: FeatureStatistics,
    resamples: int,
    compute: Callable[[FeatureStatistics], Mapping[str, float]],
    device: torch.device,
    stream: int = 0,
) -> list[dict[str, float]]:
    """Return half the difference of every number between two random halves, ``resamples`` times."""
    differences = []
    for first, second in halves(len(found.kept_features), resamples, stream):
        one, other = (compute(take(found, indices, device)) for indices in (first, second))
        differences.append({name: (one[name] - other[name]) / 2 for name in one})
    return differences


def standard_errors(differences: list[dict[str, float]]) -> dict[str, float]:
    """Return the standard error of every number from its half differences."""
    names = differences[0] if differences else {}
    return {name: float(np.sqrt(np.mean([each[name] ** 2 for each in differences]))) for name in names}
