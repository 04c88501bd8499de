"""Extract features that no training set has shaped: those of a convolutional network with random weights."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SEED, WIDTHS = 2020, (3, 32, 64, 128, 256)


class RandomFeatures:
    """Map uint8 images [B, 3, H, W] to features [B, 256] by a fixed random network.

    Naeem et al. 2020 (section 5.2) measure with a VGG16 of random weights where ImageNet's features may mislead: such
    features are about colours, edges and their arrangement, and nothing that ImageNet's labels are about. Here four
    orthogonal 3x3 convolutions, each with ReLU and average pooling down to 4x4, and the mean over all positions.
    """

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(SEED)
        self.weights = [
            nn.init.orthogonal_(torch.empty(outputs, inputs, 3, 3), gain=2**0.5, generator=random)
            for inputs, outputs in pairwise(WIDTHS)
        ]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return features [B, 256] of images."""
        return torch.cat([self._extract(part) for part in images.cpu().split(128)])

    def _extract(self, images: Tensor) -> Tensor:
        x = images.float() / 127.5 - 1
        for weight in self.weights:
            x = F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight))
            x = F.avg_pool2d(x, 2) if x.shape[-1] > 4 else x
        return x.mean((2, 3))
