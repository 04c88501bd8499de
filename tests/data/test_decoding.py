"""Check that every kind of picture becomes the right pixels or is refused with a reason."""

import io
import struct
import zlib
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage import data as photographs
from support.paths import golden_file

from hamgan.data.decoding.choices import Filter
from hamgan.data.decoding.decode import Preparation, decode
from hamgan.data.decoding.resize import adm, aliased_bilinear, central_square, resize_square
from hamgan.errors import PictureError

COFFEE = np.ascontiguousarray(photographs.coffee()[:240, 100:420])
PREPARATION = Preparation(64)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def expected(pixels: np.ndarray = COFFEE) -> np.ndarray:
    return resize_square(central_square(pixels), PREPARATION.resolution, PREPARATION.filter)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


RGB = Image.fromarray(COFFEE)
GREY = RGB.convert("L")
GREY_PIXELS = np.asarray(GREY.convert("RGB"))


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("name", "data", "pixels", "tolerance"),
    [
        ("png", encode(RGB, "PNG"), COFFEE, 0),
        ("jpeg", encode(RGB, "JPEG", quality=95), COFFEE, 2),
        ("progressive jpeg", encode(RGB, "JPEG", quality=95, progressive=True), COFFEE, 2),
        ("webp", encode(RGB, "WEBP", lossless=True), COFFEE, 0),
        ("bmp", encode(RGB, "BMP"), COFFEE, 0),
        ("grey png", encode(GREY, "PNG"), GREY_PIXELS, 0),
        ("grey jpeg", encode(GREY, "JPEG", quality=95), GREY_PIXELS, 2),
        ("16-bit png", encode(sixteen_bits(), "PNG"), GREY_PIXELS, 0.01),
        ("16-bit tiff", encode(sixteen_bits(), "TIFF"), GREY_PIXELS, 0.01),
        ("32-bit tiff", encode(sixteen_bits().convert("I"), "TIFF"), GREY_PIXELS, 0.5),
        ("float tiff", encode(Image.fromarray(np.asarray(GREY) / np.float32(255)), "TIFF"), GREY_PIXELS, 0.01),
        ("one bit", encode(GREY.convert("1"), "PNG"), np.asarray(GREY.convert("1").convert("RGB")), 0),
        ("palette", encode(RGB.quantize(256), "PNG"), np.asarray(RGB.quantize(256).convert("RGB")), 0),
        ("gif", encode(RGB.quantize(256), "GIF"), np.asarray(RGB.quantize(256).convert("RGB")), 0),
        ("opaque rgba", encode(RGB.convert("RGBA"), "PNG"), COFFEE, 0),
        ("opaque la", encode(GREY.convert("LA"), "PNG"), GREY_PIXELS, 0),
        ("cmyk jpeg", encode(RGB.convert("CMYK"), "JPEG", quality=95), COFFEE, 3),
        ("cmyk tiff", encode(RGB.convert("CMYK"), "TIFF"), COFFEE, 1),
        ("lzw tiff", encode(RGB, "TIFF", compression="tiff_lzw"), COFFEE, 0),
        (
            "profile",
            encode(
                RGB, "JPEG", quality=95, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
            ),
            COFFEE,
            2,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_picture_gives_its_pixels(name: str, data: bytes, pixels: np.ndarray, tolerance: float) -> None:
    assert difference(decode(data, PREPARATION), expected(pixels)) <= tolerance


def test_ycck_jpeg_gives_its_pixels() -> None:
    # Photoshop's CMYK JPEGs: (C, M, Y) as YCbCr, K inverted, and transform 2 in Adobe's APP14 marker. Pillow writes
    # CMYK with transform 0 and inverts it, so the channels go in inverted and the marker is changed afterwards.
    *inks, black = RGB.convert("CMYK").split()
    channels = [*Image.merge("RGB", inks).convert("YCbCr").split(), black.point(lambda value: 255 - value)]
    inverted = [channel.point(lambda value: 255 - value) for channel in channels]
    data = bytearray(encode(Image.merge("CMYK", inverted), "JPEG", quality=95))
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    data[at] = 2
    assert difference(decode(bytes(data), PREPARATION), expected()) < 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparent_pixels_show_the_background(kind: str) -> None:
    rgba = RGB.convert("RGBA")
    rgba.putalpha(Image.new("L", RGB.size, 0))
    for background in ((255, 255, 255), (10, 200, 30)):
        image = decode(
            encode(rgba, kind, **({"exact": True} if kind == "WEBP" else {})), Preparation(32, background=background)
        )
        assert (image == background).all()


def test_palette_and_grey_transparency_show_the_background() -> None:
    palette = RGB.quantize(16)
    assert (decode(encode(palette, "PNG", transparency=bytes(16)), PREPARATION) == 255).all()
    assert (decode(encode(palette, "GIF", transparency=palette.getpixel((160, 120))), PREPARATION) == 255).all(-1).any()
    grey = Image.new("L", (40, 40), 7)
    assert (decode(encode(grey, "PNG", transparency=7), PREPARATION) == 255).all()
    half = Image.merge("LA", (Image.new("L", (40, 40), 0), Image.new("L", (40, 40), 128)))
    assert abs(int(decode(encode(half, "PNG"), PREPARATION)[0, 0, 0]) - 127) <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied(kind: str) -> None:
    square = Image.fromarray(central_square(COFFEE))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 270 degrees
    image = decode(encode(square, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {})), PREPARATION)
    assert difference(image, expected(np.asarray(square.rotate(270)))) < 2


def test_animations_and_pages_give_the_first_frame() -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ((200, 0, 0), (0, 0, 200))]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        image = decode(encode(frames[0], kind, save_all=True, append_images=frames[1:]), PREPARATION)
        assert image[..., 0].mean() > 190, kind
        assert image[..., 2].mean() < 10, kind


def bomb() -> bytes:
    """Return a PNG of a few hundred bytes that claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


JPEG = encode(RGB, "JPEG", quality=95)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<html>404 Not Found</html>", "is a web page, as a failed download leaves it"),
        (b"\x00\x01no picture at all" * 9, "is not a picture in a known format"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "fetch it with `git lfs pull`"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (encode(RGB, "PNG")[:5000], "cannot be decoded"),
        (JPEG[:100], "cannot be decoded"),
        (encode(Image.new("RGB", (3, 2)), "PNG"), "is 3 x 2 pixels; the smallest side allowed is 16"),
        (encode(Image.new("RGB", (500, 15)), "PNG"), "is 500 x 15 pixels"),
        (bomb(), "has too many pixels to be safe"),
        (encode(Image.fromarray(np.full((20, 20), np.nan, np.float32)), "TIFF"), "not finite"),
    ],
)
def test_unusable_pictures_give_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(PictureError) as caught:
        decode(data, PREPARATION)
    assert reason in str(caught.value)


def test_a_picture_of_96_megapixels_is_used() -> None:
    large = encode(Image.new("RGB", (12_000, 8_000), (9, 90, 200)), "JPEG", quality=50)
    assert np.abs(decode(large, Preparation(32)).astype(int) - (9, 90, 200)).max() <= 2


def test_trailing_bytes_after_a_jpeg_do_no_harm() -> None:
    assert np.array_equal(decode(JPEG + b"GARBAGE" * 30, PREPARATION), decode(JPEG, PREPARATION))


@pytest.mark.parametrize("filter", get_args(Filter))
@pytest.mark.parametrize("target", [32, 100, 240, 300])
def test_filters_equal_pillows_to_a_grey_level(filter: Filter, target: int) -> None:
    square = central_square(COFFEE)
    pillow = np.asarray(Image.fromarray(square).resize((target, target), Image.Resampling[filter.upper()]))
    gap = np.abs(resize_square(square, target, filter).astype(int) - pillow)
    assert gap.mean() < 0.3
    assert np.quantile(gap, 0.999) <= 2


def test_the_papers_aliased_crop_equals_the_recorded_one() -> None:
    recorded = np.load(golden_file("hamgan_tf/preprocess.npz"))
    for i in range(5):
        out = recorded[f"crop{i}/out"]
        ours = aliased_bilinear(recorded[f"crop{i}/image_uint8"], len(out))
        assert np.abs(ours / 127.5 - 1 - out).max() < 3e-6
        png = encode(Image.fromarray(recorded[f"crop{i}/image_uint8"]), "PNG")
        stored = decode(png, Preparation(len(out), crop="paper"))
        assert np.abs(stored - (out + 1) * 127.5).max() < 0.501


def adm_reference(image: Image.Image, size: int) -> np.ndarray:
    """Crop by the rule of Dhariwal & Nichol's data loader, written here with NumPy and slices."""
    while min(*image.size) >= 2 * size:
        image = image.resize((image.size[0] // 2, image.size[1] // 2), resample=Image.Resampling.BOX)
    scale = size / min(*image.size)
    target = (round(image.size[0] * scale), round(image.size[1] * scale))
    pixels = np.array(image.resize(target, resample=Image.Resampling.BICUBIC))
    y, x = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[y : y + size, x : x + size]


@pytest.mark.parametrize("target", [32, 64, 200, 300])
def test_adm_crop_follows_its_rule(target: int) -> None:
    assert np.array_equal(adm(COFFEE, target), adm_reference(RGB, target))


def test_tall_and_wide_pictures_are_cropped_centrally() -> None:
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = 255
    for pixels in (wide, wide.transpose(1, 0, 2)):
        for crop in ("centre", "paper", "adm"):
            image = decode(encode(Image.fromarray(pixels), "PNG"), Preparation(20, crop=crop))
            assert image.min() > 200, crop
