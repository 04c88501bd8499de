"""Build BigGAN's residual projection discriminator, which also covers the official HamGAN's."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.config import DiscriminatorConfig
from hamgan.networks.blocks import DiscriminatorBlock
from hamgan.networks.context import Bases, context_block, draw_bases
from hamgan.networks.initialise import initialise
from hamgan.networks.slicing import SlicingLayer
from hamgan.networks.spectral_norm import SpectralConv2d, SpectralEmbedding, SpectralLinear, effective_weights

DISCRIMINATOR_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
    512: (1, 1, 2, 4, 8, 8, 16, 16),
}


class Discriminator(nn.Module):
    """Rate images given their class, by a projection discriminator (Miyato & Koyama 2018).

    Shapes: images [B, 3, R, R] in [-1, 1], labels [B] (int64) -> logits [B], in float32 or wider.
    """

    memory_format = torch.channels_last

    def __init__(self, config: DiscriminatorConfig, resolution: int, num_classes: int) -> None:
        super().__init__()
        self.config, self.resolution, self.num_classes = config, resolution, num_classes
        widths = [config.channels * width for width in DISCRIMINATOR_WIDTHS[resolution]]
        conv = partial(SpectralConv2d, config=config.spectral_norm)
        flat = 2 if resolution == 32 else 1  # blocks at the end that keep the resolution
        self.blocks = nn.ModuleList()
        self.contexts = nn.ModuleDict()
        inputs, size = 3, resolution
        for index, outputs in enumerate(widths):
            down = index < len(widths) - flat
            self.blocks.append(DiscriminatorBlock(inputs, outputs, conv, down=down, first=index == 0))
            inputs, size = outputs, size // 2 if down else size
            if config.context != "none" and down and size in config.context_resolutions:
                self.contexts[str(size)] = context_block(config, outputs, size)
        self.slicing = SlicingLayer(num_classes, inputs) if config.last_layer == "san" else None
        if self.slicing is None:
            self.linear = SpectralLinear(inputs, 1, config.spectral_norm)
            self.class_embedding = SpectralEmbedding(num_classes, inputs, config.spectral_norm)
        initialise(self, config.init)

    def draw_bases(self, batch: int, device: torch.device, generator: torch.Generator | None = None) -> Bases:
        """Draw random initial bases for every Hamburger, for `forward`."""
        return draw_bases(self.contexts, batch, device, generator)

    def forward(self, images: Tensor, labels: Tensor, bases: Bases | None = None, apart: bool = False) -> Tensor:
        """Return logits [B], or with ``apart`` both logits [2, B] of a `SlicingLayer`, for D's own step."""
        weights = effective_weights(self)
        x = images.contiguous(memory_format=self.memory_format)
        for block in self.blocks:
            x = block(x, weights)
            size = str(x.shape[-1])
            # The last block keeps the resolution; a context block follows the first block of its size.
            if block.down and size in self.contexts:
                x = self.contexts[size](x, None, bases.get(size) if bases else None, weights)
        # Sum, not mean, as in both references; logits and losses are float32 under autocast.
        with torch.autocast(x.device.type, enabled=False):
            features = F.relu(x if x.dtype == torch.float64 else x.float()).sum(dim=(2, 3))
            if self.slicing is not None:
                sliced: Tensor = self.slicing(features, labels, apart)
                return sliced
            projection = (self.class_embedding(labels, weights) * features).sum(dim=1)
            logits: Tensor = self.linear(features, weights).squeeze(1) + projection
        return logits
