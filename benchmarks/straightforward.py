"""The Hamburger block as the paper's PyTorch code computes it, on [B, D, N], to measure against."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.config import HamburgerConfig
from hamgan.errors import ConfigError
from hamgan.hamburger import Bases, Hamburger
from hamgan.hamburger.decompositions import EPS, state_dtype


def straightforward_nmf(x: Tensor, bases: Tensor, steps: int) -> Tensor:
    """`hamgan.hamburger.nmf` of non-negative x with the one-step gradient by autograd, every product where it stands.

    Shapes: x [B, D, N], bases [B, D, R] -> [B, D, N].
    """
    with torch.no_grad():
        coefficients = F.softmax(torch.bmm(x.mT, bases), dim=-1)
        for _ in range(steps):
            coefficients = coefficients * torch.bmm(x.mT, bases) / (coefficients @ (bases.mT @ bases) + EPS)
            bases = bases * torch.bmm(x, coefficients) / (bases @ (coefficients.mT @ coefficients) + EPS)
    coefficients = coefficients * torch.bmm(x.mT, bases) / (coefficients @ (bases.mT @ bases) + EPS)
    return torch.bmm(bases, coefficients.mT)


class StraightforwardHamburger(Hamburger):
    """Version 1 with NMF and the one-step gradient: convolutions and decomposition one after the other.

    Takes convolutions, norm and gate of ``block`` as they are; ``channels`` are those of the feature map. Raises
    ConfigError for a block of another kind.
    """

    def __init__(self, block: Hamburger, channels: int) -> None:
        super().__init__(channels, block.config, lambda inputs, outputs: nn.Identity())
        _check_kind(block.config)
        self.lower_bread, self.upper_bread = block.lower_bread, block.upper_bread
        self.ham, self.norm, self.gate = block.ham, block.norm, block.gate

    def forward(
        self,
        x: Tensor,
        condition: Tensor | None = None,
        bases: Bases | None = None,
        weights: Mapping[nn.Module, Tensor] | None = None,
    ) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        if bases is None:
            bases = self.draw_bases(len(x), x.shape[2], x.shape[3], x.device)
        if not isinstance(bases, Tensor):
            raise ConfigError("the straightforward form takes one tensor of bases [B*S, D, R]")
        latent = F.relu(self.lower_bread(x))
        rows = latent.reshape(len(bases), self.head_dim, -1).to(state_dtype(latent.dtype))
        with torch.autocast(x.device.type, enabled=False):
            y = straightforward_nmf(rows, bases.to(rows.dtype), self.config.steps)
        y = self.upper_bread(y.to(latent.dtype).reshape(latent.shape))
        if self.norm is not None:
            y = self.norm(y) if condition is None else self.norm(y, condition, weights)
        return x + y if self.gate is None else x + self.gate * y


def _check_kind(config: HamburgerConfig) -> None:
    wanted = {"decomposition": "nmf", "version": "v1", "mode": "spatial", "gradient": "one_step", "bases": "random"}
    for name, value in wanted.items():
        if getattr(config, name) != value:
            raise ConfigError(f"the straightforward form has hamburger.{name}: {value}, not {getattr(config, name)}")
