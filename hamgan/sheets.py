"""Images on disk: pictures, labelled sheets, folders."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from hamgan.config import ConfigError


def to_pil(images: Tensor) -> list[Image.Image]:
    """uint8 [B, 3, H, W] to pictures."""
    return [Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()) for image in images.cpu()]


def draw_sheet(
    rows: Sequence[Tensor], titles: Sequence[str], columns: int, scale: int = 1, gap: int = 2
) -> Image.Image:
    """A sheet of labelled rows of images.

    Args: rows of uint8 [n, 3, H, W], one title a row; ``scale`` enlarges every image by whole pixels.
    """
    size = rows[0].shape[-1] * scale
    margin = 8 + max((ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(title) for title in titles), default=0)
    left = int(margin) if any(titles) else 0
    sheet = Image.new("RGB", (left + columns * (size + gap) - gap, len(rows) * (size + gap) - gap), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (images, title) in enumerate(zip(rows, titles, strict=True)):
        top = row * (size + gap)
        draw.text((4, top + size // 2 - 6), title, fill="black")
        for column, image in enumerate(to_pil(images[:columns])):
            enlarged = image.resize((size, size), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (left + column * (size + gap), top))
    return sheet


def check_output(path: Path) -> None:
    """Raise ConfigError when an output path is taken; nothing that exists is ever overwritten."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise ConfigError(f"{path} exists already; choose another --out, or remove it first")


def save_folder(path: Path, images: Tensor, names: Sequence[str]) -> None:
    """Write uint8 images [B, 3, H, W] as PATH/NAME.png."""
    for image, name in zip(to_pil(images), names, strict=True):
        target = path / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(target)
