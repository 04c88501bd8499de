"""Share decompositions and their gradients among the tests of the Hamburger."""

from typing import Literal

import torch
from torch import Tensor

Decomposition = Literal["nmf", "vq", "cd"]
DECOMPOSITIONS: tuple[Decomposition, ...] = ("nmf", "vq", "cd")


def weights_like(out: Tensor) -> Tensor:
    """Return the w of the recorded gradients: d sum(out * w), w_i = sin(0.7 i + 0.3) over the flat index."""
    index = torch.arange(out.numel(), dtype=torch.float64)
    return torch.sin(0.7 * index + 0.3).reshape(out.shape).to(out.dtype)


def gradients(out: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad((out * weights_like(out)).sum(), inputs)
