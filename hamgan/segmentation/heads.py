"""Build the heads: Light-Ham, HamNet and HamNet+ around the Hamburger, and the auxiliary head for training."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.hamburger import Hamburger
from hamgan.segmentation.schema import HeadConfig
from hamgan.segmentation.van import initialise_convolutions

CLASSIFIER_STD = 0.01


def resize(x: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Resize feature maps or logits [B, C, H, W] bilinearly to ``size`` (height, width), without antialiasing."""
    if x.shape[2:] == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=align_corners)


def _norm(config: HeadConfig, channels: int) -> nn.Module:
    return nn.GroupNorm(config.groups, channels) if config.norm == "group" else nn.BatchNorm2d(channels)


class ConvNorm(nn.Module):
    """Convolve without bias, normalise, and apply ReLU."""

    def __init__(self, inputs: int, channels: int, kernel: int, config: HeadConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, kernel, padding=kernel // 2, bias=False)
        self.norm = _norm(config, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class HamHead(nn.Module):
    """Classify every position with global context (Geng et al. 2021, figure 3; Guo et al. 2022, section 4.2).

    ``light_ham`` concatenates several stages at the first one's size and has 1x1 convolutions; ``ham`` has one stage
    and 3x3 convolutions, and with ``concat_input`` concatenates its input to its features (HamNet+).
    """

    def __init__(self, config: HeadConfig, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.config = config
        kernel = 1 if config.kind == "light_ham" else 3
        inputs = sum(channels[stage] for stage in config.stages)
        self.squeeze = ConvNorm(inputs, config.ham_channels, kernel, config)
        self.hamburger: Hamburger | None = None
        if config.context == "hamburger":
            self.hamburger = Hamburger(
                config.ham_channels,
                config.hamburger,
                partial(nn.Conv2d, kernel_size=1, bias=False),
                partial(_norm, config),
                gate=config.hamburger.version == "v2+",
                final_relu=True,
                lower_conv=partial(nn.Conv2d, kernel_size=1),
            )
        self.align = ConvNorm(config.ham_channels, config.channels, kernel, config)
        self.join = ConvNorm(inputs + config.channels, config.channels, kernel, config) if config.concat_input else None
        self.classifier = nn.Conv2d(config.channels, classes, 1)
        _initialise(self)

    def draw_bases(
        self, batch: int, device: torch.device | None = None, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Draw initial bases [B*S, D, R] for `forward`; None without a Hamburger or with persistent bases."""
        if self.hamburger is None or self.config.hamburger.bases == "persistent":
            return None
        bases = self.hamburger.draw_bases(batch, 1, 1, device, generator)
        assert isinstance(bases, Tensor)  # a pair is for dual mode, which a head does not allow
        return bases

    def forward(self, maps: Sequence[Tensor], bases: Tensor | None = None, dropout: Tensor | None = None) -> Tensor:
        """Return logits [B, classes, h, w] at the size of the head's first stage.

        ``maps`` are the encoder's feature maps, ``bases`` from `draw_bases`; ``dropout`` [B, C] multiplies the channels
        before the classifier.
        """
        seen = [maps[stage] for stage in self.config.stages]
        size = seen[0].shape[2:]
        features = torch.cat([resize(x, size, self.config.align_corners) for x in seen], dim=1)
        x = self.squeeze(features)
        if self.hamburger is not None:
            x = self.hamburger(x, bases=bases)
        x = self.align(x)
        if self.join is not None:
            x = self.join(torch.cat([features, x], dim=1))
        return classify(x, self.classifier, dropout)


class AuxiliaryHead(nn.Module):
    """Classify an earlier stage with one 3x3 convolution, for a second loss in training (Zhao et al. 2017)."""

    def __init__(self, config: HeadConfig, inputs: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvNorm(inputs, channels, 3, config)
        self.classifier = nn.Conv2d(channels, classes, 1)
        _initialise(self)

    def forward(self, x: Tensor, dropout: Tensor | None = None) -> Tensor:
        """Return logits [B, classes, h, w] of a feature map [B, inputs, h, w]."""
        return classify(self.conv(x), self.classifier, dropout)


def classify(x: Tensor, classifier: nn.Module, dropout: Tensor | None) -> Tensor:
    """Return the classifier's logits of x [B, C, h, w], after multiplying channels by ``dropout`` [B, C]."""
    if dropout is not None:
        x = x * dropout[:, :, None, None].to(x.dtype)
    logits: Tensor = classifier(x)
    return logits


def draw_dropout(
    batch: int, channels: int, rate: float, device: torch.device | None, generator: torch.Generator | None
) -> Tensor:
    """Draw factors [B, C]: 0 with probability ``rate``, else such that the mean is 1."""
    place = device if generator is None else generator.device
    draw = torch.rand(batch, channels, generator=generator, device=place)
    return ((draw >= rate) / (1 - rate)).to(device)


def _initialise(head: HamHead | AuxiliaryHead) -> None:
    initialise_convolutions(head)
    nn.init.normal_(head.classifier.weight, std=CLASSIFIER_STD)
