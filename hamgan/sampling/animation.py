"""Write animations of a plan's columns: GIF with Pillow, MP4 with the ffmpeg of imageio-ffmpeg (optional)."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hamgan.errors import ConfigError

GIF_RATES = (1, 2, 4, 5, 10, 20, 25, 50)
"""Frame rates of GIFs: delays are integer hundredths of a second, and browsers slow down 1/100."""


def check_film(path: Path, fps: int) -> None:
    """Raise ConfigError unless an animation with this file name and frame rate can be written."""
    if path.suffix.lower() == ".gif" and fps not in GIF_RATES:
        nearest = min(GIF_RATES, key=lambda rate: abs(rate - fps))
        raise ConfigError(
            f"fps is {fps}; a GIF shows {', '.join(map(str, GIF_RATES))} frames per second: take {nearest}"
        )
    if not 1 <= fps <= 120:
        raise ConfigError(f"fps is {fps}; allowed: 1 to 120")
    if path.suffix.lower() == ".mp4":
        _import_ffmpeg()


def _import_ffmpeg() -> Any:
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_version()  # runs it
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(
            "MP4 needs ffmpeg: pip install imageio-ffmpeg (it brings one), or write a .gif instead"
        ) from error
    return imageio_ffmpeg


def write_film(images: np.ndarray, path: Path, fps: int, scale: int = 1) -> None:
    """Write uint8 images [rows, columns, h, w, 3] as a looping animation of ``columns`` frames at ``fps``."""
    frames = _frames(images, scale)
    first = next(frames)
    if path.suffix.lower() == ".gif":
        rest = [Image.fromarray(frame) for frame in frames]
        Image.fromarray(first).save(path, save_all=True, append_images=rest, duration=1000 // fps, loop=0)
        return
    # yuv420p plays everywhere; CRF 16 preserves textures.
    writer = _import_ffmpeg().write_frames(
        str(path),
        (first.shape[1], first.shape[0]),
        fps=fps,
        codec="libx264",
        macro_block_size=2,
        output_params=["-crf", "16"],
        ffmpeg_log_level="error",
    )
    writer.send(None)
    try:
        for frame in itertools.chain([first], frames):
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()


def tiles_across(rows: int) -> int:
    """Return how many rows of a plan are placed next to each other in a frame."""
    return math.ceil(math.sqrt(rows))


def _frames(images: np.ndarray, scale: int) -> Iterator[np.ndarray]:
    """Yield one uint8 frame [H, W, 3] per column, with the rows as tiles."""
    rows, columns, height, width = images.shape[:4]
    across = tiles_across(rows)
    for column in range(columns):
        frame = np.full((math.ceil(rows / across) * height, across * width, 3), 255, np.uint8)
        for row in range(rows):
            y, x = row // across * height, row % across * width
            frame[y : y + height, x : x + width] = images[row, column]
        yield frame.repeat(scale, axis=0).repeat(scale, axis=1)
