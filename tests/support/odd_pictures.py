"""Encode photographs as every kind of picture that data sets hold, for the tests of all that read pictures."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageCms


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Encode a picture with Pillow's writer of a kind."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _qoi(image: Image.Image) -> bytes:
    """Encode as QOI, every pixel in full: Pillow 11.0 reads the kind and does not write it."""
    pixels = b"".join(b"\xfe" + bytes(pixel) for pixel in np.asarray(image).reshape(-1, 3))
    return b"qoif" + struct.pack(">IIBB", *image.size, 3, 0) + pixels + bytes(7) + b"\x01"


def adobe_rgb() -> bytes:
    """Write a colour profile of Adobe RGB (1998): its primaries, adapted to D50, and its gamma of 563/256."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    primaries = {"r": (0.60974, 0.31111, 0.01947), "g": (0.20528, 0.62567, 0.06087), "b": (0.14919, 0.06322, 0.74457)}
    tags = {f"{name}XYZ".encode(): b"XYZ \0\0\0\0" + fixed(*place) for name, place in primaries.items()}
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + fixed(0.9642, 1.0, 0.8249)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 563)
    tags |= {f"{name}TRC".encode(): curve + b"\0\0" for name in primaries}
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 6) + b"Adobe\0" + bytes(79)
    tags[b"cprt"] = b"text\0\0\0\0none"
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        body += bytes(-len(body) % 4)
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(body), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249) + bytes(48)
    return header + table + body


def png_of_16_bits(pixels: np.ndarray, clear: tuple[int, ...] = ()) -> bytes:
    """Write uint16 [H, W] or [H, W, 3] as a 16-bit PNG, which Pillow cannot; ``clear`` is its transparent colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    transparency = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b""
    body = chunk(b"IHDR", header) + transparency + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def with_round_alpha(image: Image.Image) -> Image.Image:
    """Make all but a disc of a picture transparent, black beneath, as icons are."""
    rows, columns = np.ogrid[: image.height, : image.width]
    disc = (rows - image.height / 2) ** 2 + (columns - image.width / 2) ** 2 < (image.height * 0.4) ** 2
    pixels = np.zeros((image.height, image.width, 4), np.uint8)
    pixels[disc, :3] = np.asarray(image)[disc]
    pixels[disc, 3] = 255
    return Image.fromarray(pixels)


def _turned(image: Image.Image, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(image, kind, exif=exif)


def _grey16(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L")).astype(np.uint16) * 257


def _two_frames(image: Image.Image, kind: str) -> bytes:
    return encode(image, kind, save_all=True, append_images=[image.rotate(180)])


def _lab(image: Image.Image) -> Image.Image:
    srgb, lab = (ImageCms.ImageCmsProfile(ImageCms.createProfile(space)) for space in ("sRGB", "LAB"))
    converted = ImageCms.applyTransform(image, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    assert converted is not None
    return converted


SHADES = bytes(range(0, 256, 8))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

KINDS: dict[str, tuple[str, Callable[[Image.Image], bytes]]] = {
    "png": (".png", lambda image: encode(image, "PNG")),
    "grey and alpha png": (".png", lambda image: encode(with_round_alpha(image).convert("LA"), "PNG")),
    "transparent png": (".png", lambda image: encode(with_round_alpha(image), "PNG")),
    "transparent palette": (".png", lambda image: encode(image.quantize(32), "PNG", transparency=SHADES)),
    "one bit png": (".png", lambda image: encode(image.convert("1"), "PNG")),
    "16-bit grey png": (".png", lambda image: encode(Image.fromarray(_grey16(image)), "PNG")),
    "16-bit grey png with a clear colour": (".png", lambda image: png_of_16_bits(_grey16(image), (0x6464,))),
    "16-bit rgb png": (".png", lambda image: png_of_16_bits(np.asarray(image).astype(np.uint16) * 257)),
    "png with profile": (".png", lambda image: encode(image, "PNG", icc_profile=adobe_rgb())),
    "animated png": (".apng", lambda image: _two_frames(image, "PNG")),
    "jpeg": (".jpg", lambda image: encode(image, "JPEG")),
    "jfif": (".jfif", lambda image: encode(image, "JPEG")),
    "jpeg with capital ending": (".JPEG", lambda image: encode(image, "JPEG")),
    "turned jpeg": (".jpg", lambda image: _turned(image, "JPEG")),
    "cmyk jpeg": (".jpg", lambda image: encode(image.convert("CMYK"), "JPEG")),
    "jpeg with profile": (".jpg", lambda image: encode(image, "JPEG", icc_profile=adobe_rgb())),
    "jpeg with sRGB": (".jpg", lambda image: encode(image, "JPEG", icc_profile=SRGB)),
    "two views": (".mpo", lambda image: _two_frames(image, "MPO")),
    "gif": (".gif", lambda image: _two_frames(image.quantize(64), "GIF")),
    "webp": (".webp", lambda image: _two_frames(image, "WEBP")),
    "transparent webp": (".webp", lambda image: encode(with_round_alpha(image), "WEBP", lossless=True)),
    "tiff pages": (".tiff", lambda image: _two_frames(image, "TIFF")),
    "turned tiff": (".tif", lambda image: _turned(image, "TIFF")),
    "16-bit tiff": (".tif", lambda image: encode(Image.fromarray(_grey16(image)), "TIFF")),
    "float tiff": (".tif", lambda image: encode(Image.fromarray(_grey16(image) / np.float32(65535)), "TIFF")),
    "cmyk tiff": (".tif", lambda image: encode(image.convert("CMYK"), "TIFF")),
    "lab tiff": (".tif", lambda image: encode(_lab(image), "TIFF")),
    "bmp": (".bmp", lambda image: encode(image, "BMP")),
    "ppm": (".ppm", lambda image: encode(image, "PPM")),
    "pgm": (".pgm", lambda image: encode(image.convert("L"), "PPM")),
    "jpeg 2000": (".jp2", lambda image: encode(image, "JPEG2000")),
    "avif": (".avif", lambda image: encode(image, "AVIF")),
    "tga": (".tga", lambda image: encode(image, "TGA")),
    "icon": (".ico", lambda image: encode(image, "ICO", sizes=[image.size])),
    "qoi": (".qoi", _qoi),
    "pcx": (".pcx", lambda image: encode(image, "PCX")),
    "sgi": (".sgi", lambda image: encode(image, "SGI")),
    "dds": (".dds", lambda image: encode(image, "DDS")),
}
"""Name -> ending and encoder of a kind of picture that is read."""
