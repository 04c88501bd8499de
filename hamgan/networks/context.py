"""Build the global-context block of a network: a Hamburger or self-attention."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from hamgan.config import DiscriminatorConfig, GeneratorConfig
from hamgan.errors import ConfigError
from hamgan.hamburger import Bases as BlockBases
from hamgan.hamburger import Hamburger
from hamgan.networks.attention import SelfAttention
from hamgan.networks.blocks import NormFactory
from hamgan.networks.spectral_norm import SpectralConv2d

Bases = dict[str, BlockBases]
"""Initial bases per context block, [B*S, D, R] (a pair of them in dual mode), keyed by the block's resolution."""


def context_block(
    network: GeneratorConfig | DiscriminatorConfig, channels: int, size: int, norm: NormFactory | None = None
) -> nn.Module:
    """Build the context block after a feature map of ``size`` x ``size``; ConfigError if it does not fit."""
    # Divide by sigma, not max(1, sigma): in the official code these convolutions have spectral norm 1 exactly.
    conv = partial(SpectralConv2d, kernel=1, config=network.spectral_norm, bias=False, clamp=False)
    if network.context == "attention":
        if channels < 8:
            wider = -(-8 * network.channels // channels)
            raise ConfigError(
                f"context: attention needs feature maps of 8 channels or more, but those of {size} px have {channels} "
                f"with channels: {network.channels}; take channels: {wider} or more, or context: hamburger"
            )
        return SelfAttention(channels, conv)
    return Hamburger(channels, network.hamburger, conv, norm, positions=size * size)


def draw_bases(contexts: nn.ModuleDict, batch: int, device: torch.device, generator: torch.Generator | None) -> Bases:
    """Draw random initial bases for every Hamburger in ``contexts``, whose keys are the blocks' sizes."""
    return {
        size: block.draw_bases(batch, int(size), int(size), device, generator)
        for size, block in contexts.items()
        if isinstance(block, Hamburger)
    }


def select_bases(bases: Bases, rows: Sequence[slice], batch: int) -> Bases:
    """Concatenate the bases of the images in ``rows``, which may overlap, out of bases for ``batch`` images."""

    def select(values: Tensor) -> Tensor:
        of_image = values.unflatten(0, (batch, -1))
        return torch.cat([of_image[part] for part in rows]).flatten(0, 1)

    return {
        size: (select(values[0]), select(values[1])) if isinstance(values, tuple) else select(values)
        for size, values in bases.items()
    }
