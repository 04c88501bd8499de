"""Build the residual blocks of both networks."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.networks.spectral_norm import SpectralConv2d, Weights

ConvFactory = Callable[..., SpectralConv2d]
NormFactory = Callable[[int], nn.Module]


def _sum_of_convolutions(
    first: SpectralConv2d, x: Tensor, second: SpectralConv2d, other: Tensor, weights: Weights
) -> Tensor:
    """Return ``first(x) + second(other)`` and add the sum of both biases once: each addition is one pass on a GPU."""
    assert first.bias is not None
    assert second.bias is not None
    return first.convolve(x, weights, None) + second.convolve(other, weights, first.bias + second.bias)


class GeneratorBlock(nn.Module):
    """Apply BN, ReLU, 2x up-sampling, conv 3x3, BN, ReLU, conv 3x3, and add an up-sampled 1x1 shortcut of the input.

    Shapes: x [B, in, H, W] -> [B, out, 2H, 2W].
    """

    def __init__(self, inputs: int, outputs: int, conv: ConvFactory, norm: NormFactory) -> None:
        super().__init__()
        self.norm1 = norm(inputs)
        self.conv1 = conv(inputs, outputs, 3, resample="up")
        self.norm2 = norm(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.shortcut = conv(inputs, outputs, 1, resample="up")

    def forward(self, x: Tensor, condition: Tensor, weights: Weights) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x, condition, weights)), weights)
        return _sum_of_convolutions(self.conv2, F.relu(self.norm2(y, condition, weights)), self.shortcut, x, weights)


class DiscriminatorBlock(nn.Module):
    """Apply ReLU (not in the first block), conv 3x3, ReLU, conv 3x3, 2x2 average pooling, plus a 1x1 shortcut.

    Shapes: x [B, in, H, W] -> [B, out, H/2, W/2], or [B, out, H, W] without ``down``. Pooling and the 1x1 shortcut
    commute, so the order in which the references apply them (first block: pool first) does not matter.
    """

    def __init__(self, inputs: int, outputs: int, conv: ConvFactory, *, down: bool, first: bool) -> None:
        super().__init__()
        self.first, self.down = first, down
        resample = "down" if down else "none"
        self.conv1 = conv(inputs, outputs, 3)
        self.conv2 = conv(outputs, outputs, 3, resample=resample)
        self.shortcut = conv(inputs, outputs, 1, resample=resample) if down or inputs != outputs else None

    def forward(self, x: Tensor, weights: Weights) -> Tensor:
        y = self.conv1(x if self.first else F.relu(x), weights)
        if self.shortcut is not None:
            return _sum_of_convolutions(self.conv2, F.relu(y), self.shortcut, x, weights)
        total: Tensor = self.conv2(F.relu(y), weights) + x
        return total
