"""Draw labelled sheets of images, and check the paths that images are written to."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from hamgan.errors import ConfigError

OUTPUTS = (".png", ".gif", ".mp4", ".npz")
OTHER_FORMATS = (".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avi", ".mov", ".webm", ".npy", ".zip")


def to_pil(images: Tensor) -> list[Image.Image]:
    """Return PIL images of uint8 images [B, 3, H, W]."""
    return [Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()) for image in images.cpu()]


def draw_sheet(
    rows: Sequence[Tensor],
    titles: Sequence[str],
    *,
    groups: Sequence[tuple[str, int]] = (),
    scale: int = 1,
    gap: int = 2,
) -> Image.Image:
    """Draw a sheet of labelled rows of images.

    Args: rows of uint8 [n, 3, H, W], none longer than the first; one title a row; ``groups`` names stretches of
    columns, e.g. ``[("real", 6), ("generated", 8)]``, and sets them apart; ``scale`` enlarges every image by whole
    pixels.
    """
    size, columns = rows[0].shape[-1] * scale, len(rows[0])
    spans = list(groups) or [("", columns)]
    top, left = 18 if groups else 0, _title_width(titles)
    starts = _column_starts(spans, size, gap)
    sheet = Image.new("RGB", sheet_size(len(rows), titles, size, spans, gap), "white")
    draw = ImageDraw.Draw(sheet)
    first = 0
    for name, count in spans:
        draw.text((left + starts[first], 2), name, fill="black")
        first += count
    for row, (images, title) in enumerate(zip(rows, titles, strict=True)):
        y = top + row * (size + gap)
        draw.text((4, y + size // 2 - 6), title, fill="black")
        for start, image in zip(starts, to_pil(images), strict=False):
            sheet.paste(image.resize((size, size), Image.Resampling.NEAREST), (left + start, y))
    return sheet


def sheet_size(
    rows: int, titles: Sequence[str], size: int, groups: Sequence[tuple[str, int]], gap: int = 2
) -> tuple[int, int]:
    """Return width and height of a sheet of images of ``size`` pixels; ``groups`` as in `draw_sheet`."""
    top = 18 if any(name for name, _ in groups) else 0
    return _title_width(titles) + _column_starts(groups, size, gap)[-1] + size, top + rows * (size + gap) - gap


def _title_width(titles: Sequence[str]) -> int:
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    return int(12 + max(draw.textlength(title) for title in titles)) if any(titles) else 0


def _column_starts(groups: Sequence[tuple[str, int]], size: int, gap: int) -> list[int]:
    starts: list[int] = []
    position = 0
    for _, count in groups:
        starts += [position + index * (size + gap) for index in range(count)]
        position = starts[-1] + size + max(6 * gap, 12)
    return starts


def check_parents(path: Path, option: str = "--output") -> None:
    """Raise ConfigError where an output path leads through a file."""
    for above in path.parents:
        if above.is_file():
            raise ConfigError(f"{path}: {above} is a file, not a folder; choose another {option}")


def check_output(path: Path) -> None:
    """Raise ConfigError when an output path is taken or of another format; nothing that exists is ever overwritten."""
    kind = path.suffix.lower()
    if kind in OTHER_FORMATS:
        raise ConfigError(
            f"{path}: sheets are written as .png, films as .gif or .mp4, arrays as .npz; "
            "a name without an ending is a folder of .png files"
        )
    check_parents(path)
    empty_folder = path.is_dir() and kind not in OUTPUTS and not any(path.iterdir())
    if path.exists() and not empty_folder:
        raise ConfigError(f"{path} exists already; choose another --output, or remove it first")
