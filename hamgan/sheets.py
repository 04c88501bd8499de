"""Images on disk: pictures, labelled sheets, folders."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from hamgan.config import ConfigError

OTHER_PICTURES = (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".mp4", ".npz")


def to_pil(images: Tensor) -> list[Image.Image]:
    """uint8 [B, 3, H, W] to pictures."""
    return [Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()) for image in images.cpu()]


def draw_sheet(
    rows: Sequence[Tensor],
    titles: Sequence[str],
    *,
    groups: Sequence[tuple[str, int]] = (),
    scale: int = 1,
    gap: int = 2,
) -> Image.Image:
    """A sheet of labelled rows of images.

    Args: rows of uint8 [n, 3, H, W], all of the same n; one title a row; ``groups`` names stretches of columns, e.g.
    ``[("real", 6), ("generated", 8)]``, and sets them apart; ``scale`` enlarges every image by whole pixels.
    """
    size, columns = rows[0].shape[-1] * scale, len(rows[0])
    spans = list(groups) or [("", columns)]
    top = 18 if groups else 0
    left = _title_width(titles)
    starts = _column_starts(spans, size, gap)
    sheet = Image.new("RGB", (left + starts[-1] + size, top + len(rows) * (size + gap) - gap), "white")
    draw = ImageDraw.Draw(sheet)
    first = 0
    for name, count in spans:
        draw.text((left + starts[first], 2), name, fill="black")
        first += count
    for row, (images, title) in enumerate(zip(rows, titles, strict=True)):
        y = top + row * (size + gap)
        draw.text((4, y + size // 2 - 6), title, fill="black")
        for start, image in zip(starts, to_pil(images), strict=True):
            sheet.paste(image.resize((size, size), Image.Resampling.NEAREST), (left + start, y))
    return sheet


def _title_width(titles: Sequence[str]) -> int:
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    return int(12 + max(draw.textlength(title) for title in titles)) if any(titles) else 0


def _column_starts(groups: Sequence[tuple[str, int]], size: int, gap: int) -> list[int]:
    starts, position = [], 0
    for _, count in groups:
        starts += [position + index * (size + gap) for index in range(count)]
        position = starts[-1] + size + max(6 * gap, 12)
    return starts


def check_output(path: Path) -> None:
    """Raise ConfigError when an output path is taken; nothing that exists is ever overwritten."""
    grid = path.suffix.lower() == ".png"
    if path.suffix.lower() in OTHER_PICTURES:
        raise ConfigError(f"{path}: a grid is written as .png; any other name is a folder of .png files")
    if path.is_dir() and not grid and not any(path.iterdir()):
        return
    if path.exists():
        raise ConfigError(f"{path} exists already; choose another --out, or remove it first")


def save_folder(path: Path, images: Tensor, names: Sequence[str]) -> None:
    """Write uint8 images [B, 3, H, W] as PATH/NAME.png."""
    for image, name in zip(to_pil(images), names, strict=True):
        target = path / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(target)
