"""The generator and the discriminator: BigGAN's residual networks, which also span the official HamGAN's.

Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR 2019 (appendix B);
Geng et al., ICLR 2021 (appendix on GANs). What differs between the families is configuration.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.config import Config, ConfigError, DiscriminatorConfig, GeneratorConfig, Init, latent_chunks, validate
from hamgan.hamburger import Bases as BlockBases
from hamgan.hamburger import Hamburger
from hamgan.layers import (
    BatchNorm,
    DiscriminatorBlock,
    GeneratorBlock,
    NormFactory,
    PerClassBatchNorm,
    PlainBatchNorm,
    SelfAttention,
    SharedConditionBatchNorm,
    class_rows,
    gains_and_biases,
)
from hamgan.spectral import (
    SpectralConv2d,
    SpectralEmbedding,
    SpectralLinear,
    SpectralWeight,
    normalise_together,
    normalised_layers,
)

Bases = dict[str, BlockBases]
"""Initial bases per context block, [B*S, D, R] (a pair of them in dual mode), keyed by the block's resolution."""

START = 4  # height and width of the generator's first feature map

# Output channels of the blocks / width, as BigGAN-PyTorch has them; the last discriminator block (at 32 px the last
# two) keeps the resolution.
GENERATOR_WIDTHS = {
    32: (4, 4, 4),
    64: (16, 8, 4, 2),
    128: (16, 8, 4, 2, 1),
    256: (16, 8, 8, 4, 2, 1),
    512: (16, 8, 8, 4, 2, 1, 1),
}
DISCRIMINATOR_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
    512: (1, 1, 2, 4, 8, 8, 16, 16),
}


def _context_block(
    network: GeneratorConfig | DiscriminatorConfig, channels: int, size: int, norm: NormFactory | None = None
) -> nn.Module:
    # sigma, not max(1, sigma): the official code holds these convolutions at spectral norm 1 exactly.
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


def _draw_bases(contexts: nn.ModuleDict, batch: int, device: torch.device, generator: torch.Generator | None) -> Bases:
    return {
        size: block.draw_bases(batch, int(size), int(size), device, generator)
        for size, block in contexts.items()
        if isinstance(block, Hamburger)
    }


class Generator(nn.Module):
    """Maps a latent and a class to an image.

    Shapes: z [B, latent_dim], labels [B] (int64), or weights [B, classes] of a blend -> images [B, 3, R, R] in [-1, 1].
    """

    # Of the feature maps; 15 to 27 % of a step on a CPU against the contiguous one.
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
                self.contexts[str(size)] = _context_block(config, outputs, size, norm)
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
        """The input of the linear layer and one condition per block (the class comes first, then the z chunk)."""
        count = len(self.blocks)
        if self.config.conditioning == "per_class":
            return z, [labels] * count
        embedded = class_rows(self.class_embedding.weight, labels)
        if not self.config.hierarchical:
            return z, [embedded] * count
        first, *chunks = z.split(self.chunk, dim=1)
        return first, [torch.cat([embedded, chunk], dim=1) for chunk in chunks]

    def _condition_norms(self, conditions: list[Tensor]) -> None:
        """Make what norms with spectral norm take from the conditions in one go: apart, calls are most of its time."""
        norms, indices = [], []
        for index, block in enumerate(self.blocks):
            size = str(START * 2 ** (index + 1))
            modules = [block, self.contexts[size]] if size in self.contexts else [block]
            for part in (part for module in modules for part in module.modules()):
                if isinstance(part, SharedConditionBatchNorm) and normalised_layers(part):
                    norms.append(part)
                    indices.append(index)
        if norms:
            pairs = gains_and_biases(norms, torch.stack(conditions), indices)
            for norm, pair in zip(norms, pairs, strict=True):
                norm.ahead[:] = [pair]

    def draw_bases(self, batch: int, device: torch.device, generator: torch.Generator | None = None) -> Bases:
        """Random initial bases for every Hamburger, as `forward` takes them."""
        return _draw_bases(self.contexts, batch, device, generator)

    def forward(self, z: Tensor, labels: Tensor, bases: Bases | None = None) -> Tensor:
        normalise_together(self)
        first, conditions = self.conditions(z, labels)
        self._condition_norms(conditions)
        x = self.linear(first).view(z.shape[0], -1, START, START)
        # A [B, C, 4, 4] view of the linear layer's rows; from here on convolutions keep the format.
        x = x.contiguous(memory_format=self.memory_format)
        for block, condition in zip(self.blocks, conditions, strict=True):
            x = block(x, condition)
            size = str(x.shape[-1])
            if size in self.contexts:
                x = self.contexts[size](x, condition, bases.get(size) if bases else None)
        return torch.tanh(self.output_conv(F.relu(self.output_norm(x))))


class Discriminator(nn.Module):
    """Projection discriminator (Miyato & Koyama 2018).

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
                self.contexts[str(size)] = _context_block(config, outputs, size)
        self.linear = SpectralLinear(inputs, 1, config.spectral_norm)
        self.class_embedding = SpectralEmbedding(num_classes, inputs, config.spectral_norm)
        initialise(self, config.init)

    def draw_bases(self, batch: int, device: torch.device, generator: torch.Generator | None = None) -> Bases:
        """Random initial bases for every Hamburger, as `forward` takes them."""
        return _draw_bases(self.contexts, batch, device, generator)

    def forward(self, images: Tensor, labels: Tensor, bases: Bases | None = None) -> Tensor:
        normalise_together(self)
        x = images.contiguous(memory_format=self.memory_format)
        for block in self.blocks:
            x = block(x)
            size = str(x.shape[-1])
            # The last block keeps the resolution: a context block stands after the first of its size.
            if block.down and size in self.contexts:
                x = self.contexts[size](x, None, bases.get(size) if bases else None)
        # Sum, not mean (both references); logits and losses in float32 under autocast.
        with torch.autocast(x.device.type, enabled=False):
            features = F.relu(x if x.dtype == torch.float64 else x.float()).sum(dim=(2, 3))
            return self.linear(features).squeeze(1) + (self.class_embedding(labels) * features).sum(dim=1)


@torch.no_grad()
def initialise(network: nn.Module, init: Init) -> None:
    """Draw initial weights; biases as torch does, or zero with ``glorot`` (official HamGAN)."""
    draws: dict[Init, Callable[[Tensor], Tensor]] = {
        "orthogonal": nn.init.orthogonal_,
        "glorot": nn.init.xavier_uniform_,
        "normal": partial(nn.init.normal_, std=0.02),
    }
    draw = draws[init]
    for module in network.modules():
        if not isinstance(module, (SpectralWeight, nn.Embedding)) or module.weight.is_meta:
            continue
        # Drawn in the contiguous layout, so that the values do not depend on the memory format.
        module.weight.copy_(draw(torch.empty(module.weight.shape)))
        bias = getattr(module, "bias", None)
        if bias is not None:
            bound = 0.0 if init == "glorot" else 1 / math.sqrt(module.weight[0].numel())
            bias.uniform_(-bound, bound)


def build_networks(config: Config) -> tuple[Generator, Discriminator]:
    """Both networks of a configuration, with initial weights that are a function of ``config.seed``.

    Works under ``torch.device("meta")``. Raises ConfigError when ``data.num_classes`` is not known.
    """
    classes = config.data.num_classes
    if not classes:
        raise ConfigError("data.num_classes is not set; training reads it from the data, other uses must give it")
    validate(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        generator = Generator(config.generator, config.resolution, classes)
        discriminator = Discriminator(config.discriminator, config.resolution, classes)
    return generator, discriminator


def count_parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def batch_norm_statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The running means and variances among the tensors of a network's state."""
    return {name: value for name, value in state.items() if name.endswith((".running_mean", ".running_var"))}


def standing_statistics(generator: Generator, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Replace the running batch-norm statistics by averages over fresh batches (BigGAN, appendix B).

    Args: batches of z [B, latent_dim] and labels [B]. Biased variances, as BigGAN-PyTorch accumulates them.
    """
    norms = [module for module in generator.modules() if isinstance(module, BatchNorm)]
    kept = [(norm.momentum, norm.biased) for norm in norms]
    was_training = generator.training
    generator.train()
    for count, (z, labels) in enumerate(batches, start=1):
        for norm in norms:
            # A running mean with weight 1/k of the k-th batch is the plain average of all of them.
            norm.momentum, norm.biased = 1.0 / count, True
        generator(z, labels)
    for norm, (momentum, biased) in zip(norms, kept, strict=True):
        norm.momentum, norm.biased = momentum, biased
    generator.train(was_training)
