"""Plan the images of a visitor's request, within limits.

Sliders and numbers of the page check their own ranges on the server; everything else is checked here. Every function
raises ConfigError, with a message for the visitor.
"""

import base64
import io
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from hamgan.data.decoding.decode import Preparation, decode
from hamgan.errors import ConfigError, PictureError
from hamgan.sampling import LoadedGenerator, Plan, PlannedImage, parse_classes, plan_interpolation, plan_samples
from hamgan.sampling.classes import numbers_in
from hamgan.sampling.latents import check_seeds

MOST_IMAGES = 64
"""Largest number of images per request."""
MOST_PIXELS = 2**24
"""Largest number of pixels of a sheet, or of all frames of an animation: 64 images of 512 x 512."""
MOST_BYTES = 400_000
"""Largest size, in bytes, of a picture to search for, which the page shrinks before sending."""
LONGEST_SIDE = 2048
"""Largest side, in pixels, of a picture to segment."""
LONGEST_TEXT = 200
"""Largest number of characters of a text field."""


def plan_classes(generator: LoadedGenerator, classes: Sequence[str], seeds: str, count: int, truncation: float) -> Plan:
    """Plan one row of images per class."""
    return plan_samples(read_classes(generator, classes), read_seeds(seeds, count), [truncation], generator.titles)


def plan_blend(
    generator: LoadedGenerator, first: str, second: str, percent: float, seeds: str, count: int, truncation: float
) -> Plan:
    """Plan a row of the first class, one with ``percent`` of the second class, and one of the second class."""
    labels = [read_class(generator, first), read_class(generator, second)]
    # Separately: a plan draws a class only once, and both may be the same.
    ends = [plan_samples([label], read_seeds(seeds, count), [truncation], generator.titles) for label in labels]
    (first_row,), (second_row,) = (end.rows for end in ends)
    blend = [
        PlannedImage(image.seed, labels[0], truncation, next_label=labels[1], fraction=percent / 100)
        for image in first_row
    ]
    names = [generator.titles[label] for label in labels]
    title = f"{100 - percent:g} % {names[0]}, {percent:g} % {names[1]}"
    return Plan([first_row, blend, second_row], [names[0], title, names[1]], names=[])


def plan_walk(
    generator: LoadedGenerator, name: str, first: int | None, second: int | None, count: int, truncation: float
) -> Plan:
    """Plan one row of ``count`` images from the first seed to the second, including both."""
    label, seeds = read_class(generator, name), check_seeds([first, second])
    return plan_interpolation("seeds", [label], seeds, truncation, generator.titles, count - 1, closed=False)


def check_size(plan: Plan, frames: int, side: int) -> None:
    """Raise ConfigError for too many images, or too many pixels in ``frames`` images of ``side`` x ``side``."""
    count = len(plan.images)
    if count > MOST_IMAGES:
        raise ConfigError(f"{len(plan.rows)} x {len(plan.rows[0])} are {count:,} images; at most {MOST_IMAGES} at once")
    if frames * side**2 > MOST_PIXELS:
        raise ConfigError(
            f"{frames} images of {side} x {side} pixels are too many for one request: take at most "
            f"{MOST_PIXELS // side**2}, or a smaller enlargement"
        )


def read_classes(generator: LoadedGenerator, texts: Sequence[str]) -> list[int]:
    """Return the class indices for names, numbers, ranges and menu entries (``#3``)."""
    if not texts:
        raise ConfigError("no class is chosen")
    classes: list[int] = []
    for text in texts:
        text = _check_length(str(text), "class")
        index = text.removeprefix("#")  # of a menu entry, since a name may be another class's number
        is_choice = text.startswith("#") and index.isdecimal()
        classes += [generator.class_index(int(index))] if is_choice else parse_classes([text], generator)
        if len(classes) > MOST_IMAGES:
            raise ConfigError(f"more than {MOST_IMAGES} classes are chosen; at most {MOST_IMAGES} images at once")
    return classes


def read_class(generator: LoadedGenerator, text: str | None) -> int:
    """Return the index of the single class that a text names."""
    classes = read_classes(generator, [text] if text else [])
    if len(classes) > 1:
        raise ConfigError(f"{text!r} names {len(classes)} classes; choose one")
    return classes[0]


def read_seeds(text: str | None, count: int) -> list[int]:
    """Return the listed seeds (``0-3,12``); a single number starts a series of ``count``."""
    if not text:
        raise ConfigError("no seeds are given")
    seeds = list(itertools.islice(numbers_in(_check_length(text, "seeds"), "seed range"), MOST_IMAGES + 1))
    if len(seeds) > MOST_IMAGES:
        raise ConfigError(f"{text!r} names more than {MOST_IMAGES} seeds; at most {MOST_IMAGES} images at once")
    return seeds if len(seeds) > 1 else list(range(seeds[0], seeds[0] + count))


def _check_length(text: str, what: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise ConfigError(f"{what}: {len(text):,} characters are too many; at most {LONGEST_TEXT}")
    return text


def read_picture(generator: LoadedGenerator, address: str | None) -> Tensor:
    """Return the picture in a ``data:`` URL from the page, cropped and resized: uint8 [1, 3, R, R]."""
    content = _picture_bytes(address)
    try:
        pixels = decode(content, Preparation(generator.config.resolution))
    except (ValueError, PictureError) as error:
        raise ConfigError(f"the picture {error if isinstance(error, PictureError) else 'is damaged'}") from error
    return torch.tensor(pixels).permute(2, 0, 1)[None]


def read_whole_picture(address: str | None) -> np.ndarray:
    """Return the picture in a ``data:`` URL from the page, uncropped: uint8 [H, W, 3]."""
    try:
        image = Image.open(io.BytesIO(_picture_bytes(address)))
        if max(image.size) > LONGEST_SIDE:
            raise ConfigError(f"the picture has {image.width} x {image.height} pixels; at most {LONGEST_SIDE} a side")
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError("the picture is damaged") from error


def _picture_bytes(address: str | None) -> bytes:
    """Return the bytes of the file in a ``data:`` URL from the page."""
    head, _, body = (address or "").partition(",")
    if not address:
        raise ConfigError("choose a picture first")
    if not head.startswith("data:image/") or not head.endswith(";base64") or len(body) > MOST_BYTES:
        raise ConfigError("this is not a picture that the page has read")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise ConfigError("the picture is damaged") from error
