"""Crop and resize an RGB picture to the square training image: three crops, four antialiasing filters.

Bilinear, bicubic and, from torch 2.13 on, Lanczos run in torch's uint8 kernels, within 0.01 grey levels of Pillow's own
resize on average; ``python -m benchmarks data`` compares the speeds.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from hamgan.data.decoding.choices import Crop, Filter

# Pillow does the others, four to six times slower; fewer than 1 % of the values differ, by one grey level.
TORCH_FILTERS = ("bilinear", "bicubic", "lanczos") if torch.__version__ >= "2.13" else ("bilinear", "bicubic")


def resize_square(square: np.ndarray, target: int, filter: Filter) -> np.ndarray:
    """Resize uint8 [S, S, 3] to uint8 [target, target, 3] with an antialiasing filter."""
    if len(square) == target:
        return square
    if filter in TORCH_FILTERS:
        pixels = torch.from_numpy(np.require(square, requirements="W")).permute(2, 0, 1)[None]
        resized = F.interpolate(pixels, size=(target, target), mode=filter, antialias=True)
        return resized[0].permute(1, 2, 0).numpy()
    return np.asarray(Image.fromarray(square).resize((target, target), Image.Resampling[filter.upper()]))


def central_square(pixels: np.ndarray) -> np.ndarray:
    """Return the largest central square; half pixels round down."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def aliased_bilinear(pixels: np.ndarray, target: int) -> np.ndarray:
    """Prepare a picture as the official HamGAN does: float64 [target, target, 3] in 0..255.

    Largest central square (half pixels round up), then bilinear with aligned corners and without antialiasing, like
    TensorFlow's crop_and_resize. Values equal recorded ones; a store rounds them.
    """
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = -((side - height) // 2), -((side - width) // 2)
    position = np.arange(target) * ((side - 1) / max(target - 1, 1))
    low = np.minimum(position.astype(int), max(side - 2, 0))
    high, share = np.minimum(low + 1, side - 1), position - low
    upper, lower = pixels[top + low].astype(np.float64), pixels[top + high].astype(np.float64)
    rows = upper + (lower - upper) * share[:, None, None]
    first, second = rows[:, left + low], rows[:, left + high]
    square: np.ndarray = first + (second - first) * share[None, :, None]
    return square


def adm(pixels: np.ndarray, target: int) -> np.ndarray:
    """Crop like ADM (Dhariwal & Nichol 2021): box halvings, one bicubic resize, then the central square."""
    image = Image.fromarray(pixels)
    while min(image.size) >= 2 * target:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = target / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    return central_square(np.asarray(image.resize(size, Image.Resampling.BICUBIC)))


def crop_and_resize(pixels: np.ndarray, target: int, crop: Crop, filter: Filter) -> np.ndarray:
    """Crop and resize uint8 [H, W, 3] to uint8 [target, target, 3]."""
    if crop == "paper":
        return aliased_bilinear(pixels, target).round().astype(np.uint8)
    if crop == "adm":
        return adm(pixels, target)
    return resize_square(central_square(pixels), target, filter)
