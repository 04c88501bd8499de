"""Define the fields of the networks' sections; the text below a field is its documentation, also in ``--help``."""

from dataclasses import dataclass, field
from typing import Literal

Context = Literal["hamburger", "attention", "none"]


@dataclass
class HamburgerConfig:
    """Choose the Hamburger: a matrix decomposition between two 1x1 convolutions (Geng et al. 2021, section 3)."""

    decomposition: Literal["nmf", "vq", "cd"] = "nmf"
    """Matrix decomposition: non-negative factorisation, soft vector quantisation or concept decomposition."""
    version: Literal["v1", "v2", "v2+"] = "v1"
    """v1: 1x1 conv, decomposition, 1x1 conv; v2: with a 'cheese' (1x1 conv, norm, ReLU) before the last convolution;
    v2+: v2 with a learnt shortcut."""
    latent_dim: int | None = None
    """D, the channels inside the decomposition per head; null takes the channels of the feature map."""
    rank: int = 32
    """R, the number of bases."""
    heads: int = 1
    """S, the number of decompositions that the latent channels are split among."""
    steps: int = 6
    """K, the update steps of the decomposition while training."""
    eval_steps: int | None = None
    """K in evaluation mode; null takes `steps`."""
    temperature: float | None = None
    """Inverse temperature of the softmax for coefficients; null takes 1 for NMF and 100 for VQ and CD."""
    mode: Literal["spatial", "channel"] = "spatial"
    """spatial: decompose N positions with D channels each; channel: N channels with D positions each."""
    dual: bool = False
    """v2+ only: half of the channels are decomposed spatially, the other half channel-wise."""
    cheese_factor: int = 1
    """v2 and v2+: the cheese has (latent channels / cheese_factor) channels."""
    cheese_dim: int | None = None
    """v2 and v2+: channels of the cheese; overrides cheese_factor (official HamGAN: those of the feature map)."""
    gradient: Literal["one_step", "unrolled"] = "one_step"
    """Differentiate the last update only (the paper, section 3.3) or all of them (Light-Ham)."""
    bases: Literal["random", "persistent"] = "random"
    """Draw initial bases for every sample and forward pass, or keep one set that is updated towards the data."""
    momentum: float = 0.9
    """Persistent bases: the share of the old bases kept at an update."""
    normalise_bases: bool = False
    """L2-normalise the initial bases of NMF over D (official PyTorch code: yes, official HamGAN: no)."""
    ridge: float = 0.01
    """CD: penalty of the ridge regression for the coefficients (official HamGAN 0.01, PyTorch code 0.1)."""


@dataclass
class NormConfig:
    """Choose the constants of batch normalisation."""

    eps: float = 1e-5
    """Added to the variance (BigGAN 1e-5, official HamGAN 1e-3)."""
    momentum: float = 0.1
    """Weight of the new batch in the running statistics (BigGAN 0.1, official HamGAN 0.001)."""
    biased: bool = False
    """Store the biased variance in the running statistics (official HamGAN) instead of the unbiased one."""
    cross_replica: bool = True
    """Compute the moments over the batches of all processes."""


@dataclass
class SpectralNormConfig:
    """Choose the spectral normalisation (Miyato et al. 2018), with one power iteration per training forward pass."""

    enabled: bool = True
    """Divide every weight by its largest singular value."""
    clamp: bool = False
    """Divide by max(1, sigma) (official HamGAN, except in the Hamburger) instead of sigma."""
    vector: Literal["output", "input"] = "output"
    """Singular vector that is stored: output side (BigGAN-PyTorch) or input side (TensorFlow)."""
    eps: float = 1e-6
    """Smallest norm that a singular vector is divided by (BigGAN's scripts 1e-6, torch's default 1e-12)."""


Init = Literal["orthogonal", "glorot", "normal"]


@dataclass
class GeneratorConfig:
    """Choose the generator: BigGAN's residual network, or with other values the official HamGAN's."""

    channels: int = 96
    """Width: channels of the last block; the others are 2 to 16 times as wide."""
    latent_dim: int = 120
    """Length of z."""
    hierarchical: bool = True
    """Split z into chunks: chunk 0 for the first linear layer, chunk i + 1 for the conditioning of block i."""
    conditioning: Literal["shared", "per_class"] = "shared"
    """shared: gains and biases of batch norm from a shared class embedding; per_class: one gamma and beta per class."""
    class_embedding_dim: int = 128
    """Length of the shared class embedding (``conditioning: shared``)."""
    context: Context = "hamburger"
    """Global-context block."""
    context_resolutions: list[int] = field(default_factory=lambda: [64])
    """Feature-map sizes, in pixels, that are followed by a context block."""
    hamburger: HamburgerConfig = field(default_factory=HamburgerConfig)
    """Used where `context` is hamburger."""
    norm: NormConfig = field(default_factory=NormConfig)
    """Batch normalisation."""
    spectral_norm: SpectralNormConfig = field(default_factory=SpectralNormConfig)
    """Spectral normalisation."""
    init: Init = "orthogonal"
    """Initial weights: orthogonal (BigGAN), Glorot uniform (SAGAN, HamGAN) or N(0, 0.02)."""


@dataclass
class DiscriminatorConfig:
    """Choose the discriminator: a projection discriminator on BigGAN's residual network."""

    channels: int = 96
    """Width: channels of the first block; the others are 2 to 16 times as wide."""
    context: Context = "hamburger"
    """Global-context block."""
    context_resolutions: list[int] = field(default_factory=lambda: [64])
    """Feature-map sizes, in pixels, that are followed by a context block."""
    hamburger: HamburgerConfig = field(default_factory=lambda: HamburgerConfig(rank=16))
    """Used where `context` is hamburger."""
    spectral_norm: SpectralNormConfig = field(default_factory=SpectralNormConfig)
    """Spectral normalisation."""
    last_layer: Literal["projection", "san"] = "projection"
    """Last layer: projection (Miyato & Koyama 2018), or san, whose direction and scale have separate losses (Takida et
    al. 2024)."""
    init: Init = "orthogonal"
    """Initial weights: orthogonal (BigGAN), Glorot uniform (SAGAN, HamGAN) or N(0, 0.02)."""
