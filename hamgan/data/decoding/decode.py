"""Decode the bytes of a picture, whatever kind it is, to a square uint8 RGB array."""

import io
import re
from dataclasses import asdict, dataclass

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from hamgan.data.decoding.choices import Crop, Filter
from hamgan.data.decoding.resize import crop_and_resize
from hamgan.data.source import Description
from hamgan.errors import PictureError, one_line

# Pillow knows more, but its EPS reader runs Ghostscript on the file, and exotic ones recognise noise.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000", "ICO", "TGA")


@dataclass(frozen=True)
class Preparation:
    """Choose how a picture becomes a training image; part of every protocol, because FID depends on it."""

    resolution: int
    """Height and width of the result in pixels."""
    crop: Crop = "centre"
    """centre: largest central square, antialiased resize; paper: HamGAN's aliased bilinear; adm: box halvings first."""
    filter: Filter = "lanczos"
    """Antialiasing filter of ``centre``; ``paper`` and ``adm`` have their own."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Colour behind transparent pixels, 0 to 255."""
    min_side: int = 16
    """Pictures with a shorter side than this, in pixels, are refused."""

    def protocol(self) -> Description:
        """Return plain JSON values; the filter is the one that is really used."""
        fixed = {"centre": self.filter, "paper": "aliased bilinear", "adm": "box, bicubic"}
        return {**asdict(self), "background": list(self.background), "filter": fixed[self.crop]}


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point grey to L, by the range of the type that the values fit into."""
    values = np.asarray(image).astype(np.float32)
    top = float(values.max(initial=0.0))
    if not np.isfinite(top) or not np.isfinite(values.min(initial=0.0)):
        raise PictureError("has pixels that are not finite")
    full = 65535.0 if image.mode.startswith("I;16") or top > 255 else 1.0 if image.mode == "F" and top <= 1 else 255.0
    values *= 255 / max(full, top)
    return Image.fromarray(values.clip(0, 255, out=values).round(out=values).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8; a damaged EXIF block does not cost the picture."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's EXIF parser raises nearly anything
        return 1


def to_rgb(image: Image.Image, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """Convert any Pillow image to RGB, upright (EXIF), on the background where it is transparent."""
    transparent = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        image, transparent = _to_eight_bits(image), False
    if transparent:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def jpeg_pixels(data: bytes) -> np.ndarray:
    """Decode a JPEG to uint8 [H, W, 3], not turned by its EXIF; raises RuntimeError for what libjpeg refuses."""
    from torchvision.io import decode_jpeg  # torchvision doubles the seconds that a process takes to start

    # libjpeg-turbo as in Pillow, at 1.5 times the images/s: Pillow copies every row three times.
    pixels: torch.Tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    return pixels.permute(1, 2, 0).numpy()


def _pixels(data: bytes, image: Image.Image, background: tuple[int, int, int]) -> np.ndarray:
    plain = image.format in ("JPEG", "MPO") and image.mode == "RGB" and _orientation(image) == 1
    if plain:
        try:
            return jpeg_pixels(data)
        except RuntimeError:
            # Pillow reads a few JPEGs that torchvision does not, and names the reason for the others.
            pass
    image.load()
    return np.asarray(to_rgb(image, background))


def decode(data: bytes, preparation: Preparation) -> np.ndarray:
    """Decode a picture to uint8 [resolution, resolution, 3]; raises PictureError with the reason why it cannot be."""
    if not data:
        raise PictureError("is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if min(image.size) < preparation.min_side:
                width, height = image.size
                raise PictureError(f"is {width} x {height} pixels; the smallest side allowed is {preparation.min_side}")
            pixels = _pixels(data, image, preparation.background)
            return crop_and_resize(pixels, preparation.resolution, preparation.crop, preparation.filter)
    except (PictureError, MemoryError):  # too little memory is no fault of the picture
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"has too many pixels to be safe ({error})") from error
    except UnidentifiedImageError as error:
        raise PictureError("is not a picture in a known format") from error
    except Exception as error:  # Pillow's plugins raise nearly anything for broken files
        reason = re.sub(r"<[^>]*>", "", one_line(error))
        raise PictureError(f"cannot be decoded ({reason})") from error
