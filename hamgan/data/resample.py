"""From an RGB picture to the square training image: three crops, four antialiasing filters.

Bilinear and bicubic run in torch's uint8 kernels, Lanczos as banded matrix products: 1.7 to 2 times the images/s of
Pillow's own resize at 500 x 375 -> 128 (with decoding), within 0.15 grey levels of it on average.
"""

import os
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

Crop = Literal["centre", "paper", "adm"]
Filter = Literal["lanczos", "bicubic", "bilinear", "box"]

# Above this, a float32 copy costs more memory than the time is worth: Pillow works in uint8.
LARGEST_SIDE = 2048
_BAND = 16


@lru_cache(maxsize=512)
def _lanczos_bands(source: int, target: int) -> list[tuple[int, int, np.ndarray]]:
    """Weights of `target` outputs over `source` inputs, in bands of 16 outputs: (first input, last + 1, weights)."""
    scale = source / target
    centres = (np.arange(target) + 0.5) * scale
    distance = (np.arange(source) + 0.5 - centres[:, None]) / scale
    weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
    weights /= weights.sum(1, keepdims=True)
    bands = []
    for first in range(0, target, _BAND):
        rows = weights[first : first + _BAND]
        used = np.flatnonzero(rows.any(0))
        low, high = int(used[0]), int(used[-1]) + 1
        bands.append((low, high, np.ascontiguousarray(rows[:, low:high], np.float32)))
    return bands


def _lanczos_rows(pixels: np.ndarray, target: int) -> np.ndarray:
    out = np.empty((target, pixels.shape[1]), np.float32)
    for band, (low, high, weights) in enumerate(_lanczos_bands(len(pixels), target)):
        np.matmul(weights, pixels[low:high], out=out[band * _BAND : (band + 1) * _BAND])
    return out


def _lanczos(square: np.ndarray, target: int) -> np.ndarray:
    side = len(square)
    rows = _lanczos_rows(square.reshape(side, -1).astype(np.float32), target).reshape(target, side, 3)
    columns = _lanczos_rows(rows.transpose(1, 0, 2).reshape(side, -1), target).reshape(target, target, 3)
    return columns.round().clip(0, 255).astype(np.uint8).transpose(1, 0, 2)


def resize_square(square: np.ndarray, target: int, filter: Filter) -> np.ndarray:
    """uint8 [S, S, 3] to uint8 [target, target, 3] with an antialiasing filter."""
    side = len(square)
    if side == target:
        return square
    if filter in ("bilinear", "bicubic"):
        pixels = torch.from_numpy(square).permute(2, 0, 1)[None]
        resized = F.interpolate(pixels, size=(target, target), mode=filter, antialias=True)
        return resized[0].permute(1, 2, 0).numpy()
    if filter == "lanczos" and target < side <= LARGEST_SIDE:
        return _lanczos(square, target)
    return np.asarray(Image.fromarray(square).resize((target, target), Image.Resampling[filter.upper()]))


def central_square(pixels: np.ndarray) -> np.ndarray:
    """The largest central square; half pixels round down."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def aliased_bilinear(pixels: np.ndarray, target: int) -> np.ndarray:
    """The official HamGAN's preparation, float64 [target, target, 3] in 0..255.

    Largest central square (half pixels round up), then bilinear with the corners aligned and no antialiasing, as
    TensorFlow's crop_and_resize does it. Values equal the recorded ones; a store rounds them.
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
    return first + (second - first) * share[None, :, None]


def adm(pixels: np.ndarray, target: int) -> np.ndarray:
    """ADM's centre crop (Dhariwal & Nichol 2021): box halvings, one bicubic resize, then the central square."""
    image = Image.fromarray(pixels)
    while min(image.size) >= 2 * target:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = target / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    return central_square(np.asarray(image.resize(size, Image.Resampling.BICUBIC)))


def crop_and_resize(pixels: np.ndarray, target: int, crop: Crop, filter: Filter) -> np.ndarray:
    """uint8 [H, W, 3] to uint8 [target, target, 3]."""
    if crop == "paper":
        return aliased_bilinear(pixels, target).round().astype(np.uint8)
    if crop == "adm":
        return adm(pixels, target)
    return resize_square(central_square(pixels), target, filter)


def use_one_thread() -> None:
    """Called in every worker process: parallel over pictures is faster than inside one."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
