"""Draw labelled sheets of images."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

VISIBLE = 96
"""Least side of an image on a sheet in pixels, since little can be seen at 32."""
LINE = 18
"""Height of a line of headings in pixels."""
FONT = ImageFont.load_default(12)


def to_pil(images: Tensor) -> list[Image.Image]:
    """Return PIL images of uint8 images [B, 3, H, W]."""
    return [Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()) for image in images.cpu()]


def visible_scale(side: int, wanted: int = VISIBLE) -> int:
    """Return the integer factor that enlarges a side of ``side`` pixels to at least ``wanted`` pixels."""
    return max(1, -(-wanted // side))


def draw_sheet(
    rows: Sequence[Tensor],
    titles: Sequence[str],
    *,
    groups: Sequence[tuple[str, int]] = (),
    columns: Sequence[str] = (),
    scale: int | None = None,
    gap: int = 2,
) -> Image.Image:
    """Draw a sheet of labelled rows of images.

    ``rows`` are uint8 [n, 3, H, W], none longer than the first; ``titles`` has one title per row; ``groups`` names and
    separates groups of columns, such as ``[("real", 6), ("generated", 8)]``; ``columns`` has one heading per column,
    drawn if there is room; ``scale`` is an integer enlargement (None: chosen by `visible_scale`).
    """
    size = rows[0].shape[-1] * (visible_scale(rows[0].shape[-1]) if scale is None else scale)
    spans = list(groups) or [("", len(rows[0]))]
    left, starts = _title_width(titles), _column_starts(spans, size, gap)
    sheet = Image.new("RGB", sheet_size(len(rows), titles, size, spans, columns, gap), "white")
    draw = ImageDraw.Draw(sheet)
    first, top = 0, 0
    if any(name for name, _ in spans):
        for name, count in spans:
            draw.text((left + starts[first], 2), name, "black", FONT)
            first += count
        top = LINE
    if any(columns):
        _draw_headings(draw, columns, [left + start for start in starts], top + 2, sheet.width)
        top += LINE
    for row, (images, title) in enumerate(zip(rows, titles, strict=True)):
        y = top + row * (size + gap)
        draw.text((4, y + size // 2 - 7), title, "black", FONT)
        for start, image in zip(starts, to_pil(images), strict=False):
            sheet.paste(image.resize((size, size), Image.Resampling.NEAREST), (left + start, y))
    return sheet


def _draw_headings(
    draw: ImageDraw.ImageDraw, columns: Sequence[str], starts: Sequence[int], y: int, width: int
) -> None:
    """Draw the headings of columns that do not overlap: both ends first, then from left to right."""
    taken: list[tuple[float, float]] = []
    for index in sorted(range(len(columns)), key=lambda index: index not in (0, len(columns) - 1)):
        length = draw.textlength(columns[index], FONT)
        left = max(0.0, min(starts[index], width - length))
        if all(left + length + 6 < other or left > end + 6 for other, end in taken):
            draw.text((left, y), columns[index], "black", FONT)
            taken.append((left, left + length))


def sheet_size(
    rows: int,
    titles: Sequence[str],
    size: int,
    groups: Sequence[tuple[str, int]],
    columns: Sequence[str] = (),
    gap: int = 2,
) -> tuple[int, int]:
    """Return width and height of a sheet of images of ``size`` pixels; the rest is as in `draw_sheet`."""
    top = LINE * (any(name for name, _ in groups) + any(columns))
    return _title_width(titles) + _column_starts(groups, size, gap)[-1] + size, top + rows * (size + gap) - gap


def _title_width(titles: Sequence[str]) -> int:
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    return int(12 + max(draw.textlength(title, FONT) for title in titles)) if any(titles) else 0


def _column_starts(groups: Sequence[tuple[str, int]], size: int, gap: int) -> list[int]:
    starts: list[int] = []
    position = 0
    for _, count in groups:
        starts += [position + index * (size + gap) for index in range(count)]
        position = starts[-1] + size + max(6 * gap, 12)
    return starts
