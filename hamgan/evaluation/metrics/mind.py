"""Compute MIND, the Monge Inception Distance (Berthet et al. 2026), a sliced Wasserstein distance of features."""

import torch
from torch import Tensor

from hamgan.distributed.group import Processes
from hamgan.evaluation.metrics.fid import SHUFFLE_SEED

PROJECTIONS = 1_000
BLOCK = 64
"""Directions at a time, which need memory for two matrices of N x BLOCK."""


def monge_distance(samples: Tensor, reference: Tensor) -> float:
    """Return MIND: the squared 2-Wasserstein distance along random directions, averaged, times 3 D.

    The larger set is reduced at random to the size of the smaller one. The draw and the directions are those of
    torch-fidelity 0.5 with its default seed. As there is no covariance, a few thousand images are enough.

    Shapes: [N, D] and [M, D], all rows on every process; the processes divide the directions.
    """
    generator = torch.Generator().manual_seed(SHUFFLE_SEED)
    count = min(len(samples), len(reference))
    samples, reference = (
        features if len(features) == count else features[torch.randperm(len(features), generator=generator)[:count]]
        for features in (samples, reference)
    )
    dimension = samples.shape[1]
    directions = torch.randn(PROJECTIONS, dimension, generator=generator)
    directions = (directions / directions.norm(dim=1, keepdim=True).clamp_min(1e-12)).to(samples.device)
    processes, total = Processes.current(), torch.zeros(1, dtype=torch.float64)
    share = processes.share(PROJECTIONS)
    for block in directions[share.start : share.stop].split(BLOCK):
        sorted_samples, sorted_reference = (
            (features @ block.mT).sort(dim=0).values for features in (samples, reference)
        )
        total += (sorted_samples - sorted_reference).double().square().mean(0).sum().cpu()
    processes.sum_(total)
    return float(3 * dimension * total.item() / PROJECTIONS)
