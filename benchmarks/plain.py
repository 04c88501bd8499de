"""Define the plain form of our networks and step, as other trainers have it, to measure against: the same numbers.

Parametrised spectral norm with autograd through sigma, resampling and convolutions apart and at the large resolution,
contiguous feature maps, the straightforward Hamburger, Adam and the average of G parameter by parameter. It stands for
BigGAN-PyTorch and for torch's own ``spectral_norm``.
"""

import copy
from collections.abc import Mapping
from types import MethodType
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hamgan.config import HamburgerConfig
from hamgan.errors import ConfigError
from hamgan.hamburger import Bases, Hamburger
from hamgan.hamburger.decompositions import EPS, state_dtype
from hamgan.networks import Discriminator, Generator
from hamgan.networks.batch_norm import BatchNorm
from hamgan.networks.blocks import DiscriminatorBlock
from hamgan.networks.spectral_norm import SpectralConv2d, SpectralEmbedding, SpectralLinear, SpectralWeight, Weights
from hamgan.training.optimiser import make_adam
from hamgan.training.step import GanStep

Network = TypeVar("Network", Generator, Discriminator)


def straightforward_nmf(x: Tensor, bases: Tensor, steps: int) -> Tensor:
    """Compute `hamgan.hamburger.nmf` with the one-step gradient by autograd, every product where it stands.

    Shapes: x [B, D, N] (non-negative), bases [B, D, R] -> [B, D, N].
    """
    with torch.no_grad():
        coefficients = F.softmax(torch.bmm(x.mT, bases), dim=-1)
        for _ in range(steps):
            coefficients = coefficients * torch.bmm(x.mT, bases) / (coefficients @ (bases.mT @ bases) + EPS)
            bases = bases * torch.bmm(x, coefficients) / (bases @ (coefficients.mT @ coefficients) + EPS)
    coefficients = coefficients * torch.bmm(x.mT, bases) / (coefficients @ (bases.mT @ bases) + EPS)
    return torch.bmm(bases, coefficients.mT)


class StraightforwardHamburger(Hamburger):
    """Compute the block as the paper's PyTorch code does, on [B, D, N]: convolutions and NMF one after the other.

    It is version 1 with the one-step gradient. Takes convolutions, norm and gate of ``block`` as they are; ``channels``
    are those of the feature map. Raises ConfigError for a block of another kind.
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
        """Add the context to a feature map [B, C, H, W]."""
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
        out: Tensor = x + y if self.gate is None else x + self.gate * y
        return out


def _check_kind(config: HamburgerConfig) -> None:
    wanted = {"decomposition": "nmf", "version": "v1", "mode": "spatial", "gradient": "one_step", "bases": "random"}
    for name, value in wanted.items():
        if getattr(config, name) != value:
            raise ConfigError(f"the straightforward form has hamburger.{name}: {value}, not {getattr(config, name)}")


class ParametrisedSpectralNorm(nn.Module):
    """Divide W by sigma as ``torch.nn.utils.parametrizations.spectral_norm`` does, but for the stored side.

    torch stores both vectors and always starts from the input side; this one has the side, eps and clamp of ``layer``.
    """

    def __init__(self, layer: SpectralWeight) -> None:
        super().__init__()
        self.config, self.clamp = layer.config, layer.clamp
        vector = layer.get_buffer("vector").clone()
        if self.config.vector == "input" and layer.weight.dim() == 4:  # (kh, kw, in) to (in, kh, kw)
            _, inputs, height, width = layer.weight.shape
            vector = vector.view(height, width, inputs).permute(2, 0, 1).flatten()
        self.register_buffer("vector", vector)

    def forward(self, weight: Tensor) -> Tensor:
        """Normalise a weight with one power iteration, which training mode stores."""
        matrix, stored, eps = weight.flatten(1), self.get_buffer("vector"), self.config.eps
        with torch.autocast(weight.device.type, enabled=False):
            with torch.no_grad():
                if self.config.vector == "output":
                    v = F.normalize(torch.mv(matrix.mT, stored), dim=0, eps=eps)
                    u = F.normalize(torch.mv(matrix, v), dim=0, eps=eps)
                else:
                    u = F.normalize(torch.mv(matrix, stored), dim=0, eps=eps)
                    v = F.normalize(torch.mv(matrix.mT, u), dim=0, eps=eps)
                if self.training:
                    stored.copy_(u if self.config.vector == "output" else v)
            sigma = torch.dot(u, torch.mv(matrix, v))
            return weight / (sigma.clamp_min(1.0) if self.clamp else sigma)


def _take_weights(module: nn.Module, layer: SpectralWeight) -> None:
    """Copy weight and bias of a layer in the contiguous format, its normalisation as a parametrisation."""
    module.weight = nn.Parameter(layer.weight.detach().clone(memory_format=torch.contiguous_format))
    bias = getattr(layer, "bias", None)
    if bias is not None:
        module.bias = nn.Parameter(bias.detach().clone())
    if not layer.folded:
        # Its checks (unsafe: none) would run the parametrisation, which moves the vector.
        parametrize.register_parametrization(module, "weight", ParametrisedSpectralNorm(layer), unsafe=True)


class PlainConv2d(nn.Conv2d):
    """Convolve; nearest upsampling before it or average pooling behind it are passes of their own."""

    pool_first = False  # BigGAN-PyTorch's first block of D

    def __init__(self, layer: SpectralConv2d) -> None:
        outputs, inputs, size, _ = layer.weight.shape
        super().__init__(inputs, outputs, size, padding=size // 2, bias=layer.bias is not None)
        self.resample = layer.resample
        _take_weights(self, layer)

    def forward(self, x: Tensor, weights: Weights | None = None) -> Tensor:
        return self.convolve(x, weights, self.bias)

    def convolve(self, x: Tensor, weights: Weights | None, bias: Tensor | None) -> Tensor:
        """Return what `forward` would with another bias [out], as blocks ask for."""
        if self.resample == "up":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        if self.resample == "down" and self.pool_first:
            x = F.avg_pool2d(x, 2)
        x = self._conv_forward(x, self.weight, bias)
        return F.avg_pool2d(x, 2) if self.resample == "down" and not self.pool_first else x


class PlainLinear(nn.Linear):
    """Multiply by a matrix, which has its normalisation as a parametrisation."""

    def __init__(self, layer: SpectralLinear) -> None:
        outputs, inputs = layer.weight.shape
        super().__init__(inputs, outputs, bias=layer.bias is not None)
        _take_weights(self, layer)

    def forward(self, x: Tensor, weights: Weights | None = None) -> Tensor:
        return super().forward(x)


class PlainEmbedding(nn.Embedding):
    """Look labels up in a class table, which has its normalisation as a parametrisation."""

    def __init__(self, layer: SpectralEmbedding) -> None:
        super().__init__(*layer.weight.shape)
        _take_weights(self, layer)

    def forward(self, labels: Tensor, weights: Weights | None = None) -> Tensor:
        return super().forward(labels)


def _plain_module(module: nn.Module) -> nn.Module:
    """Return the plain form of one module whose children are plain already."""
    if isinstance(module, SpectralConv2d):
        return PlainConv2d(module)
    if isinstance(module, SpectralLinear):
        return PlainLinear(module)
    if isinstance(module, SpectralEmbedding):
        return PlainEmbedding(module)
    if isinstance(module, Hamburger) and isinstance(module.upper_bread, PlainConv2d):
        return StraightforwardHamburger(module, module.upper_bread.out_channels)
    if isinstance(module, BatchNorm):
        module.affine = MethodType(_affine, module)  # type: ignore[method-assign]  # of this one object
    if isinstance(module, DiscriminatorBlock) and module.first and isinstance(module.shortcut, PlainConv2d):
        module.shortcut.pool_first = True
    return module


def _affine(norm: BatchNorm, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    return norm.normalise(x) * gain[..., None, None] + bias[..., None, None]


def _replace(module: nn.Module) -> nn.Module:
    for name, child in list(module.named_children()):
        setattr(module, name, _replace(child))
    return _plain_module(module)


def plain_form(network: Network) -> Network:
    """Copy a network into the plain form, with the same weights and buffers; the names of its weights differ."""
    network = copy.deepcopy(network)
    _replace(network)
    network.memory_format = torch.contiguous_format
    return network


class PlainStep(GanStep):
    """Train plain networks with torch's default Adam and the average of G as BigGAN-PyTorch updates it."""

    def _make_optimizer(self, network: nn.Module, lr: float) -> torch.optim.Adam:
        return make_adam(network, self.config, lr, fused=None)

    @torch.no_grad()
    def update_average(self, images_seen: int) -> None:
        """Move the average of G's weights and buffers, one after the other."""
        if self.average is None:
            return
        decay = 0.0 if images_seen < self.config.ema_start_kimg * 1000 else self.config.ema_decay
        current = self.generator.state_dict()
        for name, value in self.average.state_dict().items():
            value.copy_(value * decay + current[name] * (1.0 - decay))
