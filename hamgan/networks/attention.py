"""Attend over all positions of a feature map: the block that a Hamburger replaces."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.networks.spectral_norm import Weights


class SelfAttention(nn.Module):
    """Attend by a non-local block with 2x2-pooled keys and values (SAGAN, section 3; BigGAN's widths C/8 and C/2).

    Shapes: x [B, C, H, W] -> the same, C divisible by 8; ``x + gate * attention(x)``, gate init 0, no 1/sqrt(d).
    """

    def __init__(self, channels: int, conv: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.query = conv(channels, channels // 8)
        self.key = conv(channels, channels // 8)
        self.value = conv(channels, channels // 2)
        self.output = conv(channels // 2, channels)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        x: Tensor,
        condition: Tensor | None = None,
        bases: Tensor | None = None,
        weights: Weights | None = None,
    ) -> Tensor:
        batch, _, height, width = x.shape  # condition and bases are for Hamburgers only
        query = self.query(x, weights).flatten(2)
        key = F.max_pool2d(self.key(x, weights), 2).flatten(2)
        value = F.max_pool2d(self.value(x, weights), 2).flatten(2)
        attention = (query.mT @ key).softmax(dim=-1)
        mixed = (value @ attention.mT).view(batch, -1, height, width)
        y: Tensor = self.output(mixed, weights)
        return x + self.gate * y
