"""Test that resampling by views, as GPUs do it, equals torch's operators, gradients included."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hamgan.networks.resampling import average_pool_by_view, upsample_by_view

Resampling = Callable[[Tensor], Tensor]


@pytest.mark.parametrize(
    ("by_view", "operator"),
    [
        (upsample_by_view, partial(F.interpolate, scale_factor=2, mode="nearest")),
        (average_pool_by_view, partial(F.avg_pool2d, kernel_size=2)),
    ],
)
@pytest.mark.parametrize("shape", [(3, 5, 8, 6), (2, 3, 2, 4), (1, 1, 4, 2)])
def test_resampling_by_views_equals_the_operator(
    by_view: Resampling, operator: Resampling, shape: tuple[int, ...]
) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=random, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    found, expected = (x.clone().requires_grad_() for _ in range(2))
    y, reference = by_view(found), operator(expected)
    torch.testing.assert_close(y, reference)
    assert y.is_contiguous(memory_format=torch.channels_last)
    grad = torch.randn(reference.shape, generator=random, dtype=torch.float64)
    y.backward(grad)
    reference.backward(grad)
    torch.testing.assert_close(found.grad, expected.grad)
    assert torch.autograd.gradgradcheck(by_view, x.clone().requires_grad_())
