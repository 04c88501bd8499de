"""Augment a training sample like MMSegmentation: scale, crop, flip, change colours, and pad.

Everything is drawn from one random stream per position of the training order, a function of (seed, stream, position),
so one process and many see the same samples and resuming needs no saved state. The kernels are torchvision's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torchvision.transforms.v2.functional as TF
from torch import Tensor
from torchvision.transforms import InterpolationMode

from hamgan.segmentation.data.source import IGNORED, Sample
from hamgan.segmentation.schema import AugmentConfig

CROP_ATTEMPTS = 10
BRIGHTNESS = 32.0
FACTORS = (0.5, 1.5)
"""Range of the factors on contrast and saturation."""
HUE = 18
"""Largest shift of the hue, where a full circle is 180."""


class TrainingSample(NamedTuple):
    """Hold one augmented sample."""

    image: Tensor
    """uint8 [3, crop, crop]; padding, right and below, is 0 here and must be 0 after normalisation too."""
    labels: Tensor
    """uint8 [crop, crop]; padding is `IGNORED`."""
    size: tuple[int, int]
    """Height and width without padding."""


def random_at(seed: int, stream: int, position: int) -> np.random.RandomState:
    """Return the random stream of one position of the training order."""
    # RandomState's stream never changes (NEP 19).
    words = [value >> shift & 0xFFFFFFFF for value in (seed, position) for shift in (0, 32)]
    return np.random.RandomState([*words, stream])


def augment(sample: Sample, config: AugmentConfig, random: np.random.RandomState) -> TrainingSample:
    """Return a randomly augmented crop of a sample."""
    image = torch.from_numpy(np.array(sample.image)).permute(2, 0, 1)  # a copy, as sources may share their memory
    labels = torch.from_numpy(np.array(sample.labels))[None]
    size = scaled_size(
        image.shape[1:], config.short_side, config.long_side, random.uniform(config.scale[0], config.scale[1])
    )
    image, labels = resize(image, size, config.antialias), resize_labels(labels, size)
    top, left = draw_crop(labels[0], config.crop, config.max_class_share, random)
    image, labels = (part[:, top : top + config.crop, left : left + config.crop] for part in (image, labels))
    if random.uniform() < config.flip:
        image, labels = TF.horizontal_flip(image), TF.horizontal_flip(labels)
    if config.photometric:
        image = distort_colours(image, random)
    height, width = image.shape[1:]
    padding = [0, 0, config.crop - width, config.crop - height]
    image, labels = TF.pad(image, padding, fill=0), TF.pad(labels, padding, fill=IGNORED)
    return TrainingSample(image.contiguous(), labels[0].contiguous(), (height, width))


def scaled_size(size: Sequence[int], short_side: int | None, long_side: int, ratio: float = 1.0) -> tuple[int, int]:
    """Return height and width after resizing into the box (long_side, short_side) times a ratio, keeping proportions.

    ``short_side`` None scales by the ratio alone.
    """
    height, width = size
    factor = ratio
    if short_side is not None:
        short, long = int(short_side * ratio), int(long_side * ratio)
        factor = min(long / max(height, width), short / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize(images: Tensor, size: Sequence[int], antialias: bool = False) -> Tensor:
    """Resize images [..., H, W] bilinearly, without align_corners, like OpenCV."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    resized: Tensor = TF.resize(images, list(size), InterpolationMode.BILINEAR, antialias=antialias)
    return resized


def resize_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Resize labels [..., H, W] by nearest neighbour, so that no new classes appear."""
    if tuple(labels.shape[-2:]) == tuple(size):
        return labels
    resized: Tensor = TF.resize(labels, list(size), InterpolationMode.NEAREST)
    return resized


def draw_crop(labels: Tensor, crop: int, max_share: float, random: np.random.RandomState) -> tuple[int, int]:
    """Draw the upper left corner (y, x) of a crop, again up to ten times if one class has too large a share of it.

    The share is that of the pixels that are not ignored, so below 1 a crop with a single class is always redrawn.
    """
    rows, columns = (max(0, side - crop) for side in labels.shape)
    for _ in range(CROP_ATTEMPTS + 1):
        top, left = random.randint(rows + 1), random.randint(columns + 1)
        if max_share >= 1 or rows == columns == 0:
            break
        counts = torch.bincount(labels[top : top + crop, left : left + crop].flatten().int(), minlength=IGNORED + 1)
        counts = counts[:IGNORED]
        if (counts > 0).sum() > 1 and counts.max() < max_share * counts.sum():
            break
    return top, left


def distort_colours(image: Tensor, random: np.random.RandomState) -> Tensor:
    """Change brightness, contrast, saturation and hue of an image uint8 [3, H, W], each with probability 1/2.

    In the order of SSD (Liu et al. 2016), where contrast is second or last at random. Each result is clipped and
    rounded down to whole grey levels.
    """
    values = image.float()
    if random.randint(2):
        values = _whole(values + random.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast_first = random.randint(2)
    if contrast_first and random.randint(2):
        values = _whole(values * random.uniform(*FACTORS))
    if random.randint(2):
        values = _whole(saturate(values, random.uniform(*FACTORS)))
    if random.randint(2):
        values = TF.adjust_hue(values.byte(), random.randint(-HUE, HUE) / 180).float()
    if not contrast_first and random.randint(2):
        values = _whole(values * random.uniform(*FACTORS))
    return values.byte()


def saturate(image: Tensor, factor: float) -> Tensor:
    """Multiply the saturation of an image [3, H, W] in HSV, limited to 1, keeping hue and value."""
    value, lowest = image.amax(0), image.amin(0)
    # Every channel is V - V S k, where k depends on the hue alone, so its distance from V is proportional to S.
    most = value / (value - lowest).clamp(min=1e-6)
    return value - (value - image) * most.clamp(max=factor)


def _whole(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).floor_()
