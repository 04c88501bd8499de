"""Decode the bytes of a picture of any format to a square uint8 RGB array."""

import io
import re
from dataclasses import asdict, dataclass

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from hamgan.data.decoding.choices import Crop, Filter
from hamgan.data.decoding.colours import WHITE, profile_transform, to_rgb
from hamgan.data.decoding.kinds import formats
from hamgan.data.decoding.resize import crop_and_resize
from hamgan.data.source import Description
from hamgan.errors import PictureError, one_line
from hamgan.files import RECOGNISED_BYTES, recognise


@dataclass(frozen=True)
class Preparation:
    """Choose how a picture becomes a training image; part of every protocol, because FID depends on it."""

    resolution: int
    """Height and width of the result in pixels."""
    crop: Crop = "centre"
    """centre: largest central square, antialiased resize; paper: HamGAN's aliased bilinear; adm: ADM's box halvings."""
    filter: Filter = "lanczos"
    """Antialiasing filter of ``centre``; ``paper`` and ``adm`` have their own."""
    background: tuple[int, int, int] = WHITE
    """Colour behind transparent pixels, 0 to 255."""
    min_side: int = 16
    """Pictures with a side of fewer pixels are refused."""

    def protocol(self) -> Description:
        """Return plain JSON values, with the filter that is actually used."""
        fixed = {"centre": self.filter, "paper": "aliased bilinear", "adm": "box, bicubic"}
        values = {**asdict(self), "background": list(self.background), "filter": fixed[self.crop]}
        return {**values, "profiles": "converted to sRGB"}


def orientation(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8; 1 for a damaged EXIF block."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's EXIF parser raises nearly anything
        return 1


def jpeg_pixels(data: bytes) -> np.ndarray:
    """Decode a JPEG to uint8 [H, W, 3], ignoring its EXIF orientation; RuntimeError if libjpeg refuses it."""
    from torchvision.io import decode_jpeg  # imported here: torchvision doubles the start-up time of a process

    # The same libjpeg-turbo as Pillow, at 1.5 times the images/s, because Pillow copies every row three times.
    pixels: torch.Tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    return pixels.permute(1, 2, 0).numpy()


def _is_plain(image: Image.Image) -> bool:
    """Return whether a picture is a JPEG that needs no conversion: RGB, upright, in sRGB."""
    if image.format not in ("JPEG", "MPO") or image.mode != "RGB" or orientation(image) != 1:
        return False
    profile = image.info.get("icc_profile")
    return not profile or profile_transform(profile, "RGB") is None


def _pixels(data: bytes, image: Image.Image, background: tuple[int, int, int]) -> np.ndarray:
    if _is_plain(image):
        try:
            return jpeg_pixels(data)
        except RuntimeError:
            # Pillow reads a few JPEGs that torchvision refuses, and gives the reason for the others.
            pass
    image.load()
    if orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    return np.asarray(to_rgb(image, background))


def decode_picture(data: bytes, background: tuple[int, int, int] = WHITE, min_side: int = 1) -> np.ndarray:
    """Decode a picture, its first frame or page, upright and in sRGB, to uint8 [H, W, 3].

    All reading of pictures goes through here, so a picture has the same pixels in training and evaluation.
    Raises PictureError with the reason why it cannot be decoded.
    """
    if not data:
        raise PictureError("is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=formats()) as image:
            if min(image.size) < min_side:
                width, height = image.size
                raise PictureError(f"is {width} x {height} pixels; the smallest side allowed is {min_side}")
            return _pixels(data, image, background)
    except (PictureError, MemoryError):  # too little memory is not the picture's fault
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"has too many pixels to be safe ({error})") from error
    except UnidentifiedImageError as error:
        known = recognise(data[:RECOGNISED_BYTES])
        raise PictureError(f"is {known}" if known else "is not a picture in a known format") from error
    except Exception as error:  # Pillow's plugins raise nearly anything for broken files
        reason = re.sub(r"<[^>]*>", "", one_line(error))
        raise PictureError(f"cannot be decoded ({reason})") from error


def decode(data: bytes, preparation: Preparation) -> np.ndarray:
    """Decode a picture to uint8 [resolution, resolution, 3]; raises PictureError with the reason why it cannot be."""
    pixels = decode_picture(data, preparation.background, preparation.min_side)
    return crop_and_resize(pixels, preparation.resolution, preparation.crop, preparation.filter)
