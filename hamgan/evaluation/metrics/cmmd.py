"""Compute CMMD (Jayasumana et al. 2024), the maximum mean discrepancy of normalised features."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hamgan.distributed.group import Processes

SIGMA = 10.0
SCALE = 1_000.0
BLOCK_BYTES = 256 * 2**20
"""Largest kernel matrix, in bytes."""


def cmmd(samples: Tensor, reference: Tensor, block_bytes: int = BLOCK_BYTES) -> float:
    """Return 1,000 times the biased squared MMD with a Gaussian kernel of width 10, like google-research's ``cmmd``.

    The features are first scaled to unit length. Distances are computed in float64: in float32 the last digits of
    1 - 1e-3 are noise, which is why published values move with the version of a library.

    Shapes: [N, D] and [M, D], all rows on every process; the processes divide the rows. No kernel matrix is larger
    than ``block_bytes``.
    """
    samples, reference = (F.normalize(features.double(), dim=1) for features in (samples, reference))
    within = _mean_kernel(samples, samples, block_bytes) + _mean_kernel(reference, reference, block_bytes)
    return SCALE * (within - 2 * _mean_kernel(samples, reference, block_bytes))


def _mean_kernel(x: Tensor, y: Tensor, block_bytes: int) -> float:
    """Return the mean of the kernel over all pairs of unit vectors x [N, D] and y [M, D]."""
    processes, total = Processes.current(), torch.zeros(1, dtype=torch.float64)
    share = processes.share(len(x))
    for block in x[share.start : share.stop].split(max(1, block_bytes // (8 * len(y)))):
        # |x - y|^2 = 2 - 2 x y.
        total += ((block @ y.mT - 1) / SIGMA**2).exp().sum().cpu()
    processes.sum_(total)
    return float(total.item() / (len(x) * len(y)))
