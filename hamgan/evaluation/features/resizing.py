"""Resize uint8 images to an extractor's input size, by each of the rules behind published numbers.

Every function maps uint8 [B, 3, H, W] to float32 pixels [B, 3, size, size] from 0 to 255.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x


def tensorflow_bilinear(images: Tensor, size: int) -> Tensor:
    """Resize as TensorFlow 1 does, without antialiasing, like the original FID and all extractors of torch-fidelity."""
    resized: Tensor = interpolate_bilinear_2d_like_tensorflow1x(images.float(), (size, size), align_corners=False)
    return resized


def bilinear(images: Tensor, size: int) -> Tensor:
    """Resize by torch's antialiased bilinear filter."""
    return F.interpolate(images.float(), (size, size), mode="bilinear", align_corners=False, antialias=True)


def bicubic(images: Tensor, size: int) -> Tensor:
    """Resize by torch's bicubic filter without antialiasing, like google-research's ``cmmd``."""
    return F.interpolate(images.float(), (size, size), mode="bicubic", align_corners=False)


def antialiased_bicubic(images: Tensor, size: int) -> Tensor:
    """Resize by torch's antialiased bicubic filter, like EDM2's ``calculate_metrics.py``."""
    return F.interpolate(images.float(), (size, size), mode="bicubic", align_corners=False, antialias=True)


def clean(images: Tensor, size: int) -> Tensor:
    """Resize like clean-fid (Parmar et al. 2022): Pillow's antialiased bicubic on float pixels, without rounding."""
    return antialiased_bicubic(images, size).clamp_(0, 255)


def pillow_bicubic(images: Tensor, size: int) -> Tensor:
    """Resize by Pillow's bicubic filter on 8-bit images, which rounds, like dgm-eval and clean-fid's CLIP."""
    pictures = (Image.fromarray(image) for image in images.permute(0, 2, 3, 1).cpu().numpy())
    resized = np.stack([np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC)) for picture in pictures])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).to(images.device, torch.float32)


RESIZING: dict[str, tuple[Callable[[Tensor, int], Tensor], str]] = {
    "tensorflow": (tensorflow_bilinear, "bilinear without antialiasing (TensorFlow 1) to {}"),
    "bilinear": (bilinear, "bilinear, antialiased to {}"),
    "clean": (clean, "bicubic, antialiased (clean-fid) to {}"),
    "pillow": (pillow_bicubic, "bicubic on 8 bits (Pillow) to {}"),
    "antialiased": (antialiased_bicubic, "bicubic, antialiased (torch) to {}"),
    "bicubic": (bicubic, "bicubic without antialiasing (torch) to {}"),
}
"""Name of a rule -> (function, its description in a protocol)."""
