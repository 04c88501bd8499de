"""Draw label maps: in colours, over their picture, and next to it on sheets."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from hamgan.sampling.sheets import FONT, LINE, draw_sheet
from hamgan.segmentation.data.source import IGNORED

OPACITY = 0.55
SIDES = (96, 256)
"""Smallest and largest side of a picture on a sheet, in pixels."""
MOST_NAMES = 40
"""Largest number of classes in a legend."""


def colourise(labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Return the colours uint8 [H, W, 3] of labels [H, W]; ignored pixels are black."""
    colours = np.zeros((IGNORED + 1, 3), np.uint8)
    colours[: len(palette)] = palette
    return np.asarray(colours[labels])


def overlay(image: np.ndarray, labels: np.ndarray, palette: np.ndarray, opacity: float = OPACITY) -> np.ndarray:
    """Return a picture uint8 [H, W, 3] with the colours of its labels over it; ignored pixels show the picture."""
    mixed = image * (1 - opacity) + colourise(labels, palette) * opacity
    return np.where((labels == IGNORED)[..., None], image, mixed.round().astype(np.uint8))


def indexed(labels: np.ndarray, palette: np.ndarray) -> Image.Image:
    """Return labels uint8 [H, W] as a palette image, one byte per pixel, that viewers show in colours."""
    image = Image.fromarray(labels)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    image.putpalette(colours.tobytes())
    return image


def draw_comparison(
    rows: Sequence[tuple[np.ndarray, ...]],
    titles: Sequence[str],
    columns: Sequence[str],
    names: Sequence[str],
    palette: np.ndarray,
) -> Image.Image:
    """Draw a sheet with a legend: a row of pictures uint8 [H, W, 3] per title, a heading per column."""
    least, greatest = SIDES
    side = min(greatest, max(least, *(max(row[0].shape[:2]) for row in rows)))
    pictures = [torch.stack([_fit(picture, side) for picture in row]) for row in rows]
    scale = 1 if side >= 160 else 2
    sheet = draw_sheet(pictures, titles, columns=columns, scale=scale, gap=4)
    return _with_legend(sheet, names[:MOST_NAMES], palette)


def _fit(picture: np.ndarray, side: int) -> Tensor:
    """Return a picture as uint8 [3, side, side], resized in proportion and centred on white."""
    height, width = picture.shape[:2]
    factor = side / max(height, width)
    kind = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST
    small = Image.fromarray(picture).resize((max(1, round(width * factor)), max(1, round(height * factor))), kind)
    canvas = Image.new("RGB", (side, side), "white")
    canvas.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)


def _with_legend(sheet: Image.Image, names: Sequence[str], palette: np.ndarray) -> Image.Image:
    """Add the classes with their colours below a sheet."""
    draw = ImageDraw.Draw(sheet)
    places, x, y = [], 4, 6
    for name in names:
        length = int(draw.textlength(name, FONT)) + 30
        if x + length > sheet.width and x > 4:
            x, y = 4, y + LINE
        places.append((x, y))
        x += length
    whole = Image.new("RGB", (sheet.width, sheet.height + y + LINE), "white")
    whole.paste(sheet)
    draw = ImageDraw.Draw(whole)
    for (x, y), name, colour in zip(places, names, palette.tolist(), strict=False):
        y += sheet.height
        draw.rectangle((x, y, x + 12, y + 12), tuple(colour), "black")
        draw.text((x + 17, y - 1), name, "black", FONT)
    return whole
