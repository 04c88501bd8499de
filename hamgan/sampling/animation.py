"""Films of a plan's columns: GIF by Pillow, MP4 by the ffmpeg that imageio-ffmpeg brings (an optional extra)."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hamgan.errors import ConfigError

GIF_RATES = (1, 2, 4, 5, 10, 20, 25, 50)
"""Frames per second that a GIF can hold: its delays are whole hundredths of a second, and browsers slow down 1/100."""


def check_film(path: Path, fps: int) -> None:
    """Raise ConfigError unless a film with this name and rate can be written here."""
    if path.suffix.lower() == ".gif" and fps not in GIF_RATES:
        nearest = min(GIF_RATES, key=lambda rate: abs(rate - fps))
        raise ConfigError(
            f"fps is {fps}; a GIF shows {', '.join(map(str, GIF_RATES))} frames per second: take {nearest}"
        )
    if not 1 <= fps <= 120:
        raise ConfigError(f"fps is {fps}; allowed: 1 to 120")
    if path.suffix.lower() == ".mp4":
        _ffmpeg()


def _ffmpeg() -> Any:
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_version()  # runs it
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(
            "MP4 needs ffmpeg: pip install imageio-ffmpeg (it brings one), or write a .gif instead"
        ) from error
    return imageio_ffmpeg


def film_frames(images: np.ndarray, scale: int = 1) -> Iterator[np.ndarray]:
    """A uint8 frame [H, W, 3] per column of images [rows, columns, h, w, 3]; the rows are its tiles."""
    rows, columns, height, width = images.shape[:4]
    across = math.ceil(math.sqrt(rows))
    down = math.ceil(rows / across)
    for column in range(columns):
        frame = np.full((down * height, across * width, 3), 255, np.uint8)
        for row in range(rows):
            y, x = row // across * height, row % across * width
            frame[y : y + height, x : x + width] = images[row, column]
        yield frame.repeat(scale, axis=0).repeat(scale, axis=1)


def write_film(images: np.ndarray, path: Path, fps: int, scale: int = 1) -> None:
    """Write uint8 images [rows, columns, h, w, 3] as a film of ``columns`` frames, at a fixed rate, without an end."""
    frames = film_frames(images, scale)
    if path.suffix.lower() == ".gif":
        first, *rest = (Image.fromarray(frame) for frame in frames)
        first.save(path, save_all=True, append_images=rest, duration=1000 // fps, loop=0)
        return
    first_frame = next(frames)
    size = (first_frame.shape[1], first_frame.shape[0])
    # yuv420p plays everywhere; CRF 16 keeps the textures that are looked at.
    writer = _ffmpeg().write_frames(
        str(path),
        size,
        fps=fps,
        codec="libx264",
        macro_block_size=2,
        output_params=["-crf", "16"],
        ffmpeg_log_level="error",
    )
    writer.send(None)
    try:
        for frame in (first_frame, *frames):
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()
