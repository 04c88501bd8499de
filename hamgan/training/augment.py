"""Augment real and generated images before D, differentiably.

DiffAugment (Zhao et al. 2020, section 3) has color, translation and cutout; consistency regularisation (Zhang et al.
2020, section 3.1) has flip and shift. The random parameters are drawn separately from the transformation, so that
they can be drawn for the global batch.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

TRANSLATION = 0.125  # largest shift, as a share of the image
CUTOUT = 0.5  # side of the grey square, as a share of the image
SHIFT = 4  # largest shift in pixels, whatever the size of the image
SIZES: dict[str, int] = {"color": 3, "translation": 2, "cutout": 2, "flip": 1, "shift": 2}
"""Number of uniform random values per image that each transformation needs."""
NEUTRAL = {"color": 0.5, "translation": 0.5, "cutout": 2.0, "flip": 1.0, "shift": 0.5}
"""Parameters that leave an image unchanged."""


def draw_augmentation(
    policy: Sequence[str], batch: int, generator: torch.Generator, probability: float = 1.0
) -> dict[str, Tensor]:
    """Draw uniform parameters in [0, 1) per image: transformation -> [B, n], n as in `SIZES`.

    Each image gets each transformation with ``probability``; otherwise its parameters are those in `NEUTRAL`.
    """
    parameters = {name: torch.rand(batch, SIZES[name], generator=generator) for name in policy}
    if probability < 1:
        for name, values in parameters.items():
            values[torch.rand(batch, generator=generator) >= probability] = NEUTRAL[name]
    return parameters


def augment(images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """Apply the transformations in ``parameters``.

    Shapes: images [B, 3, H, W] -> the same; ``parameters`` from `draw_augmentation`.
    """
    if "flip" in parameters:
        images = torch.where(parameters["flip"][:, :, None, None] < 0.5, images.flip(3), images)
    if "shift" in parameters:
        images = _shift(images, parameters["shift"])
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
    """Translate by up to an eighth of the image, filling with 0."""
    size = images.shape[-1]
    # Indices into a padded copy.
    rows, columns = _moved_positions(uniform, int(size * TRANSLATION + 0.5), size)
    padded = F.pad(images, (1, 1, 1, 1))
    return _gather(padded, (rows + 1).clamp(0, size + 1), (columns + 1).clamp(0, size + 1))


def _shift(images: Tensor, uniform: Tensor) -> Tensor:
    """Translate by up to `SHIFT` pixels, filling by reflection at the border pixels."""
    last = images.shape[-1] - 1
    rows, columns = (last - (last - moved.abs()).abs() for moved in _moved_positions(uniform, SHIFT, last + 1))
    return _gather(images, rows, columns)


def _moved_positions(uniform: Tensor, largest: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the rows and columns [B, size] that an image's pixels come from; they may be outside the image."""
    shifts = (uniform * (2 * largest + 1)).floor().long() - largest
    positions = torch.arange(size, device=uniform.device)
    return positions + shifts[:, :1], positions + shifts[:, 1:]


def _gather(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cut_out(images: Tensor, uniform: Tensor) -> Tensor:
    size = images.shape[-1]
    side = int(size * CUTOUT + 0.5)
    start = (uniform * (size + (1 - side % 2))).floor().long() - side // 2
    positions = torch.arange(size, device=images.device)
    inside = (positions >= start[..., None]) & (positions < start[..., None] + side)
    return images * ~(inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
