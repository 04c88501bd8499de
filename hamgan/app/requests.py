"""Plan what a visitor asks for, and limit what one request may ask for.

Sliders and numbers of the page check their own ranges on the server; what they cannot know is checked here. Every
function raises ConfigError, a sentence for the visitor.
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
"""Images that one request may have drawn."""
MOST_PIXELS = 2**24
"""Pixels of a sheet, or of all frames of a film: 64 images of 512 x 512."""
MOST_BYTES = 400_000
"""Bytes of a picture that is to be found; the page sends it in the size that is needed."""
LONGEST_SIDE = 2048
"""Pixels of the longer side of a picture that is to be labelled."""
LONGEST_TEXT = 200
"""Characters of a class or of seeds."""


def plan_classes(generator: LoadedGenerator, classes: Sequence[str], seeds: str, count: int, truncation: float) -> Plan:
    """Plan a row per class."""
    return plan_samples(read_classes(generator, classes), read_seeds(seeds, count), [truncation], generator.titles)


def plan_blend(
    generator: LoadedGenerator, first: str, second: str, percent: float, seeds: str, count: int, truncation: float
) -> Plan:
    """Plan a row of the first class, one with ``percent`` of the second class, and one of the second class."""
    labels = [read_class(generator, first), read_class(generator, second)]
    # One by one: both may be the same class, which is drawn once in a plan.
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
    """Plan one row of ``count`` images from the first seed to the second, both among them."""
    label, seeds = read_class(generator, name), check_seeds([first, second])
    return plan_interpolation("seeds", [label], seeds, truncation, generator.titles, count - 1, closed=False)


def check_size(plan: Plan, frames: int, side: int) -> None:
    """Raise ConfigError for too many images, or pixels of ``frames`` images whose sides have ``side`` pixels."""
    count = len(plan.images)
    if count > MOST_IMAGES:
        raise ConfigError(f"{len(plan.rows)} x {len(plan.rows[0])} are {count:,} images; at most {MOST_IMAGES} at once")
    if frames * side**2 > MOST_PIXELS:
        raise ConfigError(
            f"{frames} images of {side} x {side} pixels are too many for one request: take at most "
            f"{MOST_PIXELS // side**2}, or a smaller enlargement"
        )


def read_classes(generator: LoadedGenerator, texts: Sequence[str]) -> list[int]:
    """Return the classes of names, numbers, ranges and choices (``#3``)."""
    if not texts:
        raise ConfigError("no class is chosen")
    classes: list[int] = []
    for text in texts:
        text = _check_length(str(text), "class")
        index = text.removeprefix("#")  # of a choice: a name may be another class's number
        is_choice = text.startswith("#") and index.isdecimal()
        classes += [generator.class_index(int(index))] if is_choice else parse_classes([text], generator)
        if len(classes) > MOST_IMAGES:
            raise ConfigError(f"more than {MOST_IMAGES} classes are chosen; at most {MOST_IMAGES} images at once")
    return classes


def read_class(generator: LoadedGenerator, text: str | None) -> int:
    """Return the one class that a text names."""
    classes = read_classes(generator, [text] if text else [])
    if len(classes) > 1:
        raise ConfigError(f"{text!r} are {len(classes)} classes; choose one")
    return classes[0]


def read_seeds(text: str | None, count: int) -> list[int]:
    """Return seeds as listed (``0-3,12``); a single number starts a series of ``count``."""
    if not text:
        raise ConfigError("no seeds are given")
    seeds = list(itertools.islice(numbers_in(_check_length(text, "seeds"), "seed range"), MOST_IMAGES + 1))
    if len(seeds) > MOST_IMAGES:
        raise ConfigError(f"{text!r} are more than {MOST_IMAGES} seeds; at most {MOST_IMAGES} images at once")
    return seeds if len(seeds) > 1 else list(range(seeds[0], seeds[0] + count))


def _check_length(text: str, what: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise ConfigError(f"{what}: {len(text):,} characters are too many; at most {LONGEST_TEXT}")
    return text


def read_picture(generator: LoadedGenerator, address: str | None) -> Tensor:
    """Return the picture in a ``data:`` address, as the page makes it of a file: uint8 [1, 3, R, R]."""
    content = _picture_bytes(address)
    try:
        pixels = decode(content, Preparation(generator.config.resolution))
    except (ValueError, PictureError) as error:
        raise ConfigError(f"the picture {error if isinstance(error, PictureError) else 'is damaged'}") from error
    return torch.tensor(pixels).permute(2, 0, 1)[None]


def read_whole_picture(address: str | None) -> np.ndarray:
    """Return the picture in a ``data:`` address as the page makes it of a file: uint8 [H, W, 3]."""
    try:
        image = Image.open(io.BytesIO(_picture_bytes(address)))
        if max(image.size) > LONGEST_SIDE:
            raise ConfigError(f"the picture has {image.width} x {image.height} pixels; at most {LONGEST_SIDE} a side")
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError("the picture is damaged") from error


def _picture_bytes(address: str | None) -> bytes:
    """Return the file inside a ``data:`` address that the page has made."""
    head, _, body = (address or "").partition(",")
    if not address:
        raise ConfigError("choose a picture first")
    if not head.startswith("data:image/") or not head.endswith(";base64") or len(body) > MOST_BYTES:
        raise ConfigError("this is not a picture that the page has read")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise ConfigError("the picture is damaged") from error
