"""From the bytes of a picture to a square uint8 RGB array, whatever kind of picture it is."""

import io
import re
import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from hamgan.data.sources import DataError

Crop = Literal["centre", "paper", "adm"]
Filter = Literal["lanczos", "bicubic", "bilinear", "box"]

FILTERS = {name: Image.Resampling[name.upper()] for name in get_args(Filter)}


class PictureError(DataError):
    """One picture that cannot be used; the message is the reason that goes into skipped.jsonl."""


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes a training image; part of every data set's protocol, because FID depends on it."""

    resolution: int
    """Height and width of the result in pixels."""
    crop: Crop = "centre"
    """centre: largest centred square, antialiased resize; paper: HamGAN's aliased bilinear; adm: box halvings first."""
    filter: Filter = "lanczos"
    """Antialiasing filter of `centre`; `paper` and `adm` fix their own."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Colour behind transparent pixels, 0 to 255."""
    min_side: int = 16
    """Pictures with a shorter side than this, in pixels, are refused."""


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point grey to L: by the range of the type that the values fit into."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise PictureError("has pixels that are not finite")
    top = values.max(initial=0.0)
    full = 65535.0 if image.mode.startswith("I;16") or top > 255 else 1.0 if image.mode == "F" and top <= 1 else 255.0
    return Image.fromarray((values / max(full, top) * 255).clip(0, 255).round().astype(np.uint8))


def to_rgb(image: Image.Image, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """Any Pillow image as RGB, upright (EXIF), on the background where it is transparent."""
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        image = _to_eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, (*background, 255))
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _centre_box(width: int, height: int) -> tuple[int, int, int, int]:
    side = min(width, height)
    left, upper = (width - side) // 2, (height - side) // 2
    return left, upper, left + side, upper + side


def crop_and_resize(image: Image.Image, how: Preparation) -> np.ndarray:
    """An RGB image as uint8 [resolution, resolution, 3]."""
    size = (how.resolution, how.resolution)
    # Cropping first keeps pixels outside the square out of the antialiasing window at its edges.
    return np.asarray(image.crop(_centre_box(*image.size)).resize(size, FILTERS[how.filter]))


def decode(data: bytes, how: Preparation) -> np.ndarray:
    """The picture in `data` as uint8 [resolution, resolution, 3]; raises PictureError with the reason it cannot be."""
    if not data:
        raise PictureError("is empty (0 bytes)")
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")
            if min(image.size) < how.min_side:
                raise PictureError(
                    f"is {image.width} x {image.height} pixels; the smallest side allowed is {how.min_side}"
                )
            image.load()
            return crop_and_resize(to_rgb(image, how.background), how)
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"has too many pixels to be safe ({error})") from error
    except Image.UnidentifiedImageError as error:
        raise PictureError("is not a picture in a known format") from error
    except Exception as error:  # Pillow's plugins raise nearly anything for broken files
        reason = re.sub(r"<[^>]*>", "", " ".join(str(error).split())) or type(error).__name__
        raise PictureError(f"cannot be decoded ({reason})") from error
