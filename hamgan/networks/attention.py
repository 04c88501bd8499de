"""Attend over all positions of a feature map, in the block that a Hamburger replaces."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.networks.spectral_norm import Weights


class SelfAttention(nn.Module):
    """Attend by a non-local block with 2x2-pooled keys and values (SAGAN, section 3; BigGAN's widths C/8 and C/2).

    Returns ``x + gate * attention(x)``; the gate starts at 0, and there is no factor 1/sqrt(d). Shapes: x [B, C, H, W]
    -> the same; C must be divisible by 8.
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
        height, width = x.shape[2:]  # only Hamburgers use condition and bases
        query = self.query(x, weights)
        key, value = (F.max_pool2d(conv(x, weights), 2) for conv in (self.key, self.value))
        # [1, B, positions, features]: images take the place of heads. With a batch of one head each, the compiler gives
        # that head a stride of 1, for which CUDA has no kernel.
        query, key, value = (part.flatten(2).mT[None] for part in (query, key, value))
        if x.is_cuda and (missing := -query.shape[-1] % 8):  # its kernels need multiples of 8; zeros add nothing
            query, key = F.pad(query, (0, missing)), F.pad(key, (0, missing))
        # On a GPU this never stores the attention map [B, H W, H W / 4], which would be most of the network's memory.
        mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)[0].mT
        y: Tensor = self.output(mixed.unflatten(2, (height, width)), weights)
        return torch.addcmul(x, y.to(x.dtype), self.gate.to(x.dtype))
