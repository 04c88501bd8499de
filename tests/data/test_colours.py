"""Check that depth, transparency and colour profiles become the colours that viewers show."""

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs
from support.odd_pictures import KINDS, SRGB, adobe_rgb, encode, png_of_16_bits

from hamgan.data.decoding.decode import decode_picture
from hamgan.data.decoding.kinds import endings, formats
from hamgan.errors import PictureError

COFFEE = np.ascontiguousarray(photographs.coffee()[100:164, 200:264])
RGB = Image.fromarray(COFFEE)


def adobe_to_srgb(pixels: np.ndarray) -> np.ndarray:
    """Compute by the definitions of both spaces, D65 to D65, what Adobe RGB's numbers are in sRGB."""
    to_xyz = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]])
    to_linear = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    linear = ((pixels / 255) ** (563 / 256) @ to_xyz.T @ to_linear.T).clip(0, 1)
    srgb: np.ndarray = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return srgb


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_colour_profile_is_converted_to_srgb(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode_picture(encode(RGB, kind, icc_profile=adobe_rgb(), **options))
    assert np.abs(found - adobe_to_srgb(COFFEE)).max() < 3
    assert np.abs(found.astype(int) - COFFEE).max() > 20


def test_a_profile_of_srgb_changes_no_bit_and_a_damaged_one_is_ignored() -> None:
    for profile in (SRGB, b"no profile", adobe_rgb()[:200]):
        assert np.array_equal(decode_picture(encode(RGB, "PNG", icc_profile=profile)), COFFEE)
    assert np.array_equal(decode_picture(encode(RGB, "JPEG", icc_profile=SRGB)), decode_picture(encode(RGB, "JPEG")))
    grey = RGB.convert("L")  # with the profile of an RGB picture, as editors leave it
    assert np.array_equal(decode_picture(encode(grey, "PNG", icc_profile=adobe_rgb())), np.asarray(grey.convert("RGB")))


def test_a_profile_applies_beneath_transparency_and_not_to_the_background() -> None:
    picture = RGB.convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 64, 32))
    found = decode_picture(encode(picture, "PNG", icc_profile=adobe_rgb()), background=(10, 200, 30))
    assert (found[:32] == (10, 200, 30)).all()
    assert np.abs(found[32:] - adobe_to_srgb(COFFEE[32:])).max() < 3


def test_the_clear_colour_of_16_bit_pictures_shows_the_background() -> None:
    for shape, clear in (((40, 40), (0x1234,)), ((40, 40, 3), (0x1234, 0x5678, 0x9ABC))):
        pixels = np.full(shape, 0x8000, np.uint16)
        pixels[:20] = clear
        found = decode_picture(png_of_16_bits(pixels, clear))
        assert (found[:20] == 255).all(), shape
        assert (np.abs(found[20:].astype(int) - 128) <= 1).all(), shape


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_has_an_ending_that_is_read_and_decodes_near_the_photograph(name: str) -> None:
    ending, write = KINDS[name]
    assert ending.lower() in endings()
    found = decode_picture(write(RGB))
    assert found.shape == COFFEE.shape
    assert found.dtype == np.uint8
    if "transparent" in name or "alpha" in name or "clear" in name:
        return  # the tests above say what these show
    grey = any(word in name for word in ("grey", "16-bit tiff", "float", "pgm", "one bit"))
    wanted = np.asarray(RGB.convert("L").convert("RGB")) if grey else COFFEE
    wanted = adobe_to_srgb(wanted) if "with profile" in name else wanted
    wanted = np.rot90(wanted, -1) if "turned" in name else wanted
    rough = 40 if name == "one bit png" else 14 if name == "gif" else 8
    blocks = [image.reshape(8, 8, 8, 8, 3).astype(float).mean((1, 3)) for image in (found, wanted)]
    assert np.abs(blocks[0] - blocks[1]).mean() < rough


def test_pictures_of_plugins_are_read_where_the_plugin_is_there() -> None:
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    assert "HEIF" in formats()
    assert {".heic", ".heif", ".hif"} <= endings()
    assert np.abs(decode_picture(encode(RGB, "HEIF", quality=95)).astype(int) - COFFEE).mean() < 6


def test_a_picture_of_a_plugin_that_is_not_there_names_it() -> None:
    if "HEIF" not in formats():
        with pytest.raises(PictureError, match="is a HEIC picture; reading it takes `pip install pillow-heif`"):
            decode_picture(b"\0\0\0\x18ftypheic" + bytes(40))
    if "JXL" not in formats():
        with pytest.raises(
            PictureError, match="is a JPEG XL picture; reading it takes `pip install pillow-jxl-plugin`"
        ):
            decode_picture(b"\xff\x0a" + bytes(40))
