"""Draw the initial weights of a network."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from hamgan.config import Init
from hamgan.networks.spectral_norm import SpectralWeight


@torch.no_grad()
def initialise(network: nn.Module, init: Init) -> None:
    """Draw initial weights, in place; biases as in torch, or zero with ``glorot`` (official HamGAN)."""
    draws: dict[Init, Callable[[Tensor], Tensor]] = {
        "orthogonal": nn.init.orthogonal_,
        "glorot": nn.init.xavier_uniform_,
        "normal": partial(nn.init.normal_, std=0.02),
    }
    draw = draws[init]
    for module in network.modules():
        if not isinstance(module, (SpectralWeight, nn.Embedding)) or module.weight.is_meta:
            continue
        # Drawn in the contiguous layout, so that the values do not depend on the memory format.
        module.weight.copy_(draw(torch.empty(module.weight.shape)))
        bias = getattr(module, "bias", None)
        if bias is not None:
            bound = 0.0 if init == "glorot" else 1 / math.sqrt(module.weight[0].numel())
            bias.uniform_(-bound, bound)
