"""Build the Visual Attention Network (Guo et al. 2022), whose attention multiplies by a large convolution.

Modules have the names of the official code, so that its weights load directly.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.segmentation.config import VAN_SIZES
from hamgan.segmentation.schema import EncoderConfig

MLP_RATIOS = (8, 8, 4, 4)
LAYER_SCALE = 0.01
LAYER_NORM_EPS = 1e-6
REACH = 9
"""Reach of large-kernel attention in cells of a feature map, to each side: a 7x7 kernel of dilation 3."""


class PatchEmbed(nn.Module):
    """Reduce the size of a feature map by a strided convolution and a batch norm."""

    def __init__(self, inputs: int, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, channels, kernel, stride, kernel // 2)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.proj(x))
        return y


class LargeKernelAttention(nn.Module):
    """Multiply a feature map by an attention map: 5x5 depthwise, dilated 7x7 depthwise and 1x1 convolutions of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.conv_spatial = nn.Conv2d(channels, channels, 7, padding=9, groups=channels, dilation=3)
        self.conv1 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.conv1(self.conv_spatial(self.conv0(x)))
        return y


class Attention(nn.Module):
    """Apply large-kernel attention between two 1x1 convolutions, with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj_1 = nn.Conv2d(channels, channels, 1)
        self.spatial_gating_unit = LargeKernelAttention(channels)
        self.proj_2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj_2(self.spatial_gating_unit(F.gelu(self.proj_1(x)))) + x
        return y


class DepthwiseConv(nn.Module):
    """Convolve every channel with its own 3x3 kernel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dwconv(x)
        return y


class Mlp(nn.Module):
    """Expand the channels, convolve depthwise by 3x3, and reduce them again."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.dwconv = DepthwiseConv(hidden)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.dwconv(self.fc1(x))))
        return y


class Block(nn.Module):
    """Add attention, then an MLP, each after a batch norm and scaled by a learnt factor per channel."""

    def __init__(self, channels: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.attn = Attention(channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = Mlp(channels, channels * mlp_ratio)
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), LAYER_SCALE))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return [B, C, H, W]; ``keep`` [B, 2] multiplies the two branches (drop path)."""
        x = x + self._factor(self.layer_scale_1, keep, 0) * self.attn(self.norm1(x))
        y: Tensor = x + self._factor(self.layer_scale_2, keep, 1) * self.mlp(self.norm2(x))
        return y

    def _factor(self, scale: Tensor, keep: Tensor | None, branch: int) -> Tensor:
        factor = scale if keep is None else keep[:, branch, None].to(scale.dtype) * scale
        return factor[..., None, None]


class VAN(nn.Module):
    """Compute four feature maps [B, channels[i], H / s, W / s] of an image, s the product of ``strides`` up to i."""

    def __init__(
        self,
        channels: Sequence[int],
        depths: Sequence[int],
        strides: Sequence[int] = (4, 2, 2, 2),
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.channels, self.depths = list(channels), list(depths)
        self.drop_path = [drop_path * block / max(1, sum(depths) - 1) for block in range(sum(depths))]
        inputs = 3
        for stage, (outputs, depth, stride) in enumerate(zip(channels, depths, strides, strict=True), start=1):
            self.add_module(f"patch_embed{stage}", PatchEmbed(inputs, outputs, 7 if stage == 1 else 3, stride))
            blocks = [Block(outputs, MLP_RATIOS[stage - 1]) for _ in range(depth)]
            self.add_module(f"block{stage}", nn.ModuleList(blocks))
            self.add_module(f"norm{stage}", nn.LayerNorm(outputs, eps=LAYER_NORM_EPS))
            inputs = outputs
        initialise_convolutions(self)

    def draw_drop_path(
        self, batch: int, device: torch.device | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the factors [B, blocks, 2] of all branches: 0 for a skipped one, else such that the mean is 1."""
        place = device if generator is None else generator.device
        keep = 1 - torch.tensor(self.drop_path, device=place)[:, None]
        draw = torch.rand(batch, len(keep), 2, generator=generator, device=place)
        return ((draw < keep) / keep).to(device)

    def forward(self, x: Tensor, drop_path: Tensor | None = None) -> list[Tensor]:
        """Return the feature maps of images [B, 3, H, W]; ``drop_path`` from `draw_drop_path`, None keeps all."""
        maps, position = [], 0
        for stage in range(1, len(self.depths) + 1):
            x = self.get_submodule(f"patch_embed{stage}")(x)
            blocks = self.get_submodule(f"block{stage}")
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, None if drop_path is None else drop_path[:, position])
                position += 1
            x = self.get_submodule(f"norm{stage}")(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            maps.append(x)
        return maps


@torch.no_grad()
def initialise_convolutions(network: nn.Module) -> None:
    """Draw weights from N(0, 2 / fan_out) (He et al. 2015), fan_out within a group; biases are 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build_van(config: EncoderConfig) -> VAN:
    """Build the VAN of a configuration."""
    channels, depths = VAN_SIZES[config.name]
    return VAN(config.channels or channels, config.depths or depths, config.strides, config.drop_path)
