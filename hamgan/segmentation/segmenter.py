"""Build a segmenter: an encoder, a head around the Hamburger and, for training, an auxiliary head."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hamgan.errors import ConfigError
from hamgan.segmentation.config import validate
from hamgan.segmentation.heads import AuxiliaryHead, HamHead, draw_dropout, resize
from hamgan.segmentation.resnet import build_timm
from hamgan.segmentation.schema import SegmentationConfig
from hamgan.segmentation.van import VAN, build_van

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
"""Mean and standard deviation of ImageNet's pixels, RGB in 0 to 255."""


def normalise(images: Tensor) -> Tensor:
    """Normalise RGB images [..., 3, H, W] in 0 to 255 to the float32 input of a segmenter."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    return (images.float() - mean) / std


class SegmenterNoise(NamedTuple):
    """Hold all randomness of a training forward pass; axis 0 is the batch (for bases, batch times heads S)."""

    bases: Tensor | None
    """Initial bases [B*S, D, R] of the Hamburger."""
    drop_path: Tensor | None
    """Factors [B, blocks, 2] of a VAN's branches."""
    dropout: Tensor | None
    """Factors [B, C] of the head's channels."""
    auxiliary_dropout: Tensor | None
    """Factors [B, C] of the auxiliary head's channels."""


class Logits(NamedTuple):
    """Hold the logits of a forward pass, each at its head's own size."""

    main: Tensor
    """Logits [B, classes, h, w] of the head."""
    auxiliary: Tensor | None
    """Logits of the auxiliary head in training mode, or None."""


class Segmenter(nn.Module):
    """Compute the logits of an image's pixels.

    In evaluation mode they depend on the image alone: the Hamburger's initial bases are one fixed draw.
    """

    def __init__(self, config: SegmentationConfig, classes: int) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.encoder = build_van(config.encoder) if config.encoder.kind == "van" else build_timm(config.encoder)
        self.head = HamHead(config.head, self.encoder.channels, classes)
        self.auxiliary: AuxiliaryHead | None = None
        if config.auxiliary.weight > 0:
            inputs = self.encoder.channels[config.auxiliary.stage]
            self.auxiliary = AuxiliaryHead(config.head, inputs, config.auxiliary.channels, classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = config.encoder.norm_momentum

    def draw_noise(
        self, batch: int, device: torch.device | None = None, generator: torch.Generator | None = None
    ) -> SegmenterNoise:
        """Draw the randomness of a training forward pass of ``batch`` images, on the generator's device."""
        head, auxiliary = self.config.head, self.config.auxiliary
        dropout = head.dropout
        return SegmenterNoise(
            bases=self.head.draw_bases(batch, device, generator),
            drop_path=self.encoder.draw_drop_path(batch, device, generator) if isinstance(self.encoder, VAN) else None,
            dropout=draw_dropout(batch, head.channels, dropout, device, generator) if dropout else None,
            auxiliary_dropout=draw_dropout(batch, auxiliary.channels, dropout, device, generator)
            if dropout and self.auxiliary is not None
            else None,
        )

    def evaluation_bases(self, seed: int, batch: int, device: torch.device | None = None) -> Tensor | None:
        """Return the fixed initial bases of a seed, the same for every image of the batch; the default is seed 0."""
        bases = self.head.draw_bases(1, device, torch.Generator().manual_seed(seed))
        return None if bases is None else bases.repeat(batch, 1, 1)

    def forward(self, images: Tensor, noise: SegmenterNoise | None = None, bases: Tensor | None = None) -> Logits:
        """Return logits of normalised images [B, 3, H, W], at the sizes of the heads.

        In training, ``noise`` None draws it. In evaluation there is no noise; ``bases`` are from `evaluation_bases`,
        None for the default draw.
        """
        if images.device.type == "cpu":
            # Channels last: 0.69 of the time of a step of `land` in float32, and 0.77 of that of prediction, on one
            # core.
            images = images.contiguous(memory_format=torch.channels_last)
        if self.training and noise is None:
            noise = self.draw_noise(len(images), images.device)
        if noise is None:
            return Logits(self.head(self.encoder(images), bases), None)
        maps = self.encoder(images, noise.drop_path)
        auxiliary = None
        if self.auxiliary is not None:
            auxiliary = self.auxiliary(maps[self.config.auxiliary.stage], noise.auxiliary_dropout)
        return Logits(self.head(maps, noise.bases, noise.dropout), auxiliary)

    def resize_logits(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Resize logits [B, classes, h, w] to the size of an image or a label map."""
        return resize(logits, (height, width), self.config.head.align_corners)


def build_segmenter(config: SegmentationConfig) -> Segmenter:
    """Build the segmenter of a configuration, with initial weights that are a function of ``config.seed``.

    The encoder's pretrained weights are loaded by `load_encoder_weights`. Works under ``torch.device("meta")``. Raises
    ConfigError when ``data.num_classes`` is not known.
    """
    classes = config.data.num_classes
    if not classes:
        raise ConfigError("data.num_classes is not set; training reads it from the data, other uses must give it")
    validate(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Segmenter(config, classes)
