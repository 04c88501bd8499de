"""Augment real and generated images in front of D, differentiably: DiffAugment (Zhao et al. 2020, section 3).

The random parameters are drawn apart from the transformation, so that they can be drawn for the global batch.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

TRANSLATION = 0.125  # largest shift, as a share of the image
CUTOUT = 0.5  # side of the grey square, as a share of the image


def draw_augmentation(policy: Sequence[str], batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw uniform parameters in [0, 1) per image: color [B, 3], translation [B, 2], cutout [B, 2]."""
    sizes = {"color": 3, "translation": 2, "cutout": 2}
    return {name: torch.rand(batch, sizes[name], generator=generator) for name in policy}


def augment(images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """Apply brightness, saturation and contrast changes, a shift and a cut-out.

    Shapes: images [B, 3, H, W] -> the same; parameters as `draw_augmentation` returns them.
    """
    if "color" in parameters:
        images = _color(images, parameters["color"].to(images.dtype))
    if "translation" in parameters:
        images = _translate(images, parameters["translation"])
    if "cutout" in parameters:
        images = _cut_out(images, parameters["cutout"])
    return images


def _color(images: Tensor, uniform: Tensor) -> Tensor:
    brightness, saturation, contrast = uniform[:, :, None, None, None].unbind(1)
    images = images + (brightness - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * (2 * saturation) + grey
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * (contrast + 0.5) + mean


def _translate(images: Tensor, uniform: Tensor) -> Tensor:
    size = images.shape[-1]
    largest = int(size * TRANSLATION + 0.5)
    shifts = (uniform * (2 * largest + 1)).floor().long() - largest
    positions = torch.arange(size, device=images.device)
    # Index into a padded copy: what comes from outside is 0.
    rows = (positions + shifts[:, :1] + 1).clamp(0, size + 1)
    columns = (positions + shifts[:, 1:] + 1).clamp(0, size + 1)
    padded = F.pad(images, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cut_out(images: Tensor, uniform: Tensor) -> Tensor:
    size = images.shape[-1]
    side = int(size * CUTOUT + 0.5)
    start = (uniform * (size + (1 - side % 2))).floor().long() - side // 2
    positions = torch.arange(size, device=images.device)
    inside = (positions >= start[..., None]) & (positions < start[..., None] + side)
    return images * ~(inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
