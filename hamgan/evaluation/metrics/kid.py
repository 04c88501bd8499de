"""Compute the kernel distance KID (Bińkowski et al. 2018)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hamgan.distributed.group import Processes
from hamgan.evaluation.metrics.fid import SHUFFLE_SEED

RBF_SIGMA = 10.0
"""torch-fidelity's width of the Gaussian kernel."""


def kernel_distance(
    samples: Tensor, reference: Tensor, subsets: int, subset_size: int, kernel: str = "polynomial"
) -> tuple[float, float]:
    """Return KID and its standard deviation over ``subsets`` random subsets of ``subset_size`` features a side.

    KID is the mean over the subsets of an unbiased estimate of the squared MMD with the kernel (x·y / D + 1)³, or with
    exp(-|x - y|² / 2 σ²) where ``kernel`` is ``rbf``.
    Shapes: [N, D] and [M, D], all rows on every process; the processes divide the subsets, which are torch-fidelity's.
    Needs memory for three matrices of subset_size².
    """
    processes = Processes.current()
    if subset_size == len(samples) == len(reference):
        subsets = 1  # all subsets would be the same
    random = np.random.RandomState(SHUFFLE_SEED)
    estimates = torch.zeros(subsets, dtype=torch.float64)
    for subset in range(subsets):
        chosen_samples = torch.from_numpy(random.choice(len(samples), subset_size, replace=False))
        chosen_reference = torch.from_numpy(random.choice(len(reference), subset_size, replace=False))
        if subset % processes.size == processes.rank:
            estimates[subset] = _squared_mmd(samples[chosen_samples], reference[chosen_reference], KERNELS[kernel])
    processes.sum_(estimates)
    return float(estimates.mean()), float(estimates.std(correction=0))


def _squared_mmd(x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> float:
    size = len(x)
    within_x, within_y, between = kernel(x, x), kernel(y, y), kernel(x, y)
    within = within_x.sum() - within_x.trace() + within_y.sum() - within_y.trace()
    return float(within / (size * (size - 1)) - 2 * between.sum() / size**2)


def _polynomial(x: Tensor, y: Tensor) -> Tensor:
    # The product in float32 has an error of 1e-7 and takes half the time; cubes and sums need float64.
    values = (x @ y.mT).double().div_(x.shape[1]).add_(1)
    return values * values * values


def _gaussian(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.double(), y.double()
    squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * (x @ y.mT)
    return squares.div_(-2 * RBF_SIGMA**2).exp_()


KERNELS = {"polynomial": _polynomial, "rbf": _gaussian}
