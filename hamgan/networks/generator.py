"""Build BigGAN's residual generator, which also covers the official HamGAN's.

Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR 2019 (appendix B);
Geng et al., ICLR 2021 (appendix on GANs). The families differ by configuration only.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.config import GeneratorConfig, latent_chunks
from hamgan.hamburger import Ham
from hamgan.networks.batch_norm import (
    BatchNorm,
    PerClassBatchNorm,
    PlainBatchNorm,
    SharedConditionBatchNorm,
    class_rows,
)
from hamgan.networks.blocks import GeneratorBlock, NormFactory
from hamgan.networks.context import Bases, context_block, draw_bases
from hamgan.networks.initialise import initialise
from hamgan.networks.spectral_norm import SpectralConv2d, SpectralLinear, effective_weights

START = 4
"""Height and width of the generator's first feature map."""

# Output channels of the blocks, in units of the width, as in BigGAN-PyTorch. The last discriminator block (at 32 px the
# last two) keeps the resolution.
GENERATOR_WIDTHS = {
    32: (4, 4, 4),
    64: (16, 8, 4, 2),
    128: (16, 8, 4, 2, 1),
    256: (16, 8, 8, 4, 2, 1),
    512: (16, 8, 8, 4, 2, 1, 1),
}


class Generator(nn.Module):
    """Map a latent and a class to an image.

    Shapes: z [B, latent_dim]; labels [B] (int64), or weights [B, classes] that blend -> images [B, 3, R, R] in [-1, 1].
    """

    # Memory format of the feature maps; saves 15 to 27 % of a step on a CPU against the contiguous one.
    memory_format = torch.channels_last

    def __init__(self, config: GeneratorConfig, resolution: int, num_classes: int) -> None:
        super().__init__()
        self.config, self.resolution, self.num_classes = config, resolution, num_classes
        widths = [config.channels * width for width in GENERATOR_WIDTHS[resolution]]
        start = 16 * config.channels if resolution > 32 else 4 * config.channels
        chunks = latent_chunks(resolution) if config.hierarchical else 1
        self.chunk = config.latent_dim // chunks
        conv = partial(SpectralConv2d, config=config.spectral_norm)
        norm = self._norm_factory()
        if config.conditioning == "shared":
            self.class_embedding = nn.Embedding(num_classes, config.class_embedding_dim)
        self.linear = SpectralLinear(self.chunk, start * START * START, config.spectral_norm)
        self.blocks = nn.ModuleList()
        self.contexts = nn.ModuleDict()
        inputs, size = start, START
        for outputs in widths:
            self.blocks.append(GeneratorBlock(inputs, outputs, conv, norm))
            inputs, size = outputs, 2 * size
            if config.context != "none" and size in config.context_resolutions:
                self.contexts[str(size)] = context_block(config, outputs, size, norm)
        self.output_norm = PlainBatchNorm(inputs, config.norm)
        self.output_conv = conv(inputs, 3, 3)
        initialise(self, config.init)

    def _norm_factory(self) -> NormFactory:
        config = self.config
        if config.conditioning == "per_class":
            return partial(PerClassBatchNorm, classes=self.num_classes, norm=config.norm)
        condition = config.class_embedding_dim + (self.chunk if config.hierarchical else 0)
        return partial(
            SharedConditionBatchNorm, condition_dim=condition, norm=config.norm, spectral=config.spectral_norm
        )

    def conditions(self, z: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the input of the linear layer, and for each block its condition: class embedding, then chunk of z."""
        count = len(self.blocks)
        if self.config.conditioning == "per_class":
            return z, [labels] * count
        embedded = class_rows(self.class_embedding.weight, labels)
        if not self.config.hierarchical:
            return z, [embedded] * count
        first, *chunks = z.split(self.chunk, dim=1)
        return first, [torch.cat([embedded, chunk], dim=1) for chunk in chunks]

    def draw_bases(self, batch: int, device: torch.device, generator: torch.Generator | None = None) -> Bases:
        """Draw random initial bases for every Hamburger, for `forward`."""
        return draw_bases(self.contexts, batch, device, generator)

    def forward(self, z: Tensor, labels: Tensor, bases: Bases | None = None) -> Tensor:
        weights = effective_weights(self)
        first, conditions = self.conditions(z, labels)
        x = self.linear(first, weights).view(z.shape[0], -1, START, START)
        # A channels-last view [B, C, 4, 4] of the linear layer's rows; the following convolutions keep the format.
        x = x.contiguous(memory_format=self.memory_format)
        for block, condition in zip(self.blocks, conditions, strict=True):
            x = block(x, condition, weights)
            size = str(x.shape[-1])
            if size in self.contexts:
                x = self.contexts[size](x, condition, bases.get(size) if bases else None, weights)
        return torch.tanh(self.output_conv(F.relu(self.output_norm(x)), weights))


def standing_statistics(generator: Generator, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Replace the running batch-norm statistics by averages over fresh batches (BigGAN, appendix B).

    ``batches`` are pairs of z [B, latent_dim] and labels [B]. Averages biased variances, like BigGAN-PyTorch.
    Persistent bases count as weights and do not change.
    """
    norms = [module for module in generator.modules() if isinstance(module, BatchNorm)]
    kept = [(norm.momentum, norm.biased) for norm in norms]
    was_training = generator.training
    generator.train()
    for module in generator.modules():
        if isinstance(module, Ham) and module.bases is not None:
            module.eval()
    for count, (z, labels) in enumerate(batches, start=1):
        for norm in norms:
            # A running mean with weight 1/k for the k-th batch is the plain average of all batches.
            norm.momentum, norm.biased = 1.0 / count, True
        generator(z, labels)
    for norm, (momentum, biased) in zip(norms, kept, strict=True):
        norm.momentum, norm.biased = momentum, biased
    generator.train(was_training)
