"""Convert the pixels of any picture to 8-bit sRGB: bit depth, transparency, colour profile."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from hamgan.errors import PictureError

WHITE = (255, 255, 255)
SAME_LEVELS = 2
"""A profile that changes no colour by more levels than this counts as sRGB, of which many versions exist."""


def to_rgb(image: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Convert any Pillow image to 8-bit sRGB, with transparent pixels on the background (RGB, 0 to 255)."""
    profile = image.info.get("icc_profile")
    if image.mode[0] in "IF":
        image = to_eight_bits(image)
    alpha = _alpha(image)
    if alpha is None:
        return _to_srgb(image, profile)
    grey = image.mode in ("LA", "L", "1")
    colours = _to_srgb(image.convert("LA").getchannel("L") if grey else image.convert("RGBA").convert("RGB"), profile)
    colours.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), colours).convert("RGB")


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point grey to L, by the range of the smallest type that holds the values.

    A transparent value declared by a PNG becomes an alpha channel (LA). Raises PictureError for NaN or infinity.
    """
    values = np.asarray(image).astype(np.float32)
    top = float(np.max(values, initial=0.0))
    if not np.isfinite(top) or not np.isfinite(np.min(values, initial=0.0)):
        raise PictureError("has pixels that are not finite")
    clear = image.info.get("transparency")
    alpha = None if clear is None else Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
    full = 65535.0 if image.mode.startswith("I;16") or top > 255 else 1.0 if image.mode == "F" and top <= 1 else 255.0
    values *= 255 / max(full, top)
    grey = Image.fromarray(values.clip(0, 255, out=values).round(out=values).astype(np.uint8))
    return grey if alpha is None else Image.merge("LA", (grey, alpha))


def _alpha(image: Image.Image) -> Image.Image | None:
    """Return the alpha channel, also of a transparent palette entry or colour; None for an opaque picture."""
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:  # of a 16-bit PNG, whose upper bytes Pillow keeps
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or clear is not None:
        return image.convert("RGBA").getchannel("A")
    return None


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an opaque picture to RGB, and to sRGB if it has a usable colour profile."""
    if image.mode == "LAB":  # Lab needs no profile
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        return _apply(image, ImageCms.buildTransform(lab, _srgb(), "LAB", "RGB"))
    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    transform = profile_transform(profile, image.mode) if profile else None
    return _apply(image, transform) if transform else image.convert("RGB")


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # None would mean a conversion in place
    return converted


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@lru_cache(maxsize=64)
def profile_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a colour profile to sRGB for pictures of a mode (RGB, L or CMYK).

    None for sRGB itself, and for a damaged profile or one of another mode, which viewers ignore too.
    """
    try:
        transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), _srgb(), mode, "RGB")
    except (OSError, ImageCms.PyCMSError):
        return None
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    axes = np.meshgrid(*[levels] * len(Image.new(mode, (1, 1)).getbands()))
    grid = Image.fromarray(np.stack(axes, -1).reshape(len(levels), -1, len(axes)).squeeze(), mode)
    moved = np.asarray(_apply(grid, transform)).astype(int) - np.asarray(grid.convert("RGB"))
    return None if np.abs(moved).max() <= SAME_LEVELS else transform
