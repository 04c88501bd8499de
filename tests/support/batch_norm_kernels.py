"""Compute plainly what the kernels of `torch.nn.SyncBatchNorm` compute, which torch has for GPUs only."""

from typing import Any
from unittest import mock

import torch
from torch import Tensor

from hamgan.hamburger.decompositions import state_dtype


def plain_gpu_kernels() -> Any:
    """Return a context in which the plain forms stand in the kernels' places."""
    return mock.patch.multiple(
        torch,
        batch_norm_stats=stats,
        batch_norm_gather_stats_with_counts=gather_stats_with_counts,
        batch_norm_elemt=elemt,
        batch_norm_backward_reduce=backward_reduce,
        batch_norm_backward_elemt=backward_elemt,
    )


def stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the mean and 1 / sqrt(var + eps) of every channel, in float32 or wider."""
    var, mean = torch.var_mean(x.to(state_dtype(x.dtype)), (0, 2, 3), correction=0)
    return mean, (var + eps).rsqrt()


def gather_stats_with_counts(
    x: Tensor,
    means: Tensor,
    scales: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return what `stats` would of all processes' maps, and move the running moments, the variance unbiased."""
    total = counts.sum()
    shares = counts[:, None] / total
    mean = (shares * means).sum(0)
    var = (shares * (scales**-2 - eps + (means - mean) ** 2)).sum(0)
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(var * total / (total - 1), momentum)
    return mean, (var + eps).rsqrt()


def elemt(x: Tensor, weight: None, bias: None, mean: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Return the normalised map, in the type of x."""
    return ((x - mean[:, None, None]) * scale[:, None, None]).to(x.dtype)


def backward_reduce(
    grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, weight: None, *wanted: bool
) -> tuple[Tensor, Tensor, None, None]:
    """Return the sums of the gradient and of its product with x - mean, of every channel."""
    assert wanted == (True, False, False)
    return grad.sum((0, 2, 3)), (grad * (x - mean[:, None, None])).sum((0, 2, 3)), None, None


def backward_elemt(
    grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, sums: Tensor, products: Tensor, count: Tensor
) -> Tensor:
    """Return the gradient of x."""
    total = count.sum()
    slope = scale**2 * products / total
    inner = grad - (sums / total)[:, None, None] - (x - mean[:, None, None]) * slope[:, None, None]
    return (inner * (weight * scale)[:, None, None]).to(x.dtype)
