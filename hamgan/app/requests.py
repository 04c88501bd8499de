"""What a visitor may ask for: values as they arrive, checked whatever the page's widgets allow, made into plans."""

import itertools
from dataclasses import dataclass
from typing import Any, Literal

from hamgan.errors import ConfigError
from hamgan.sampling import (
    LoadedGenerator,
    Picture,
    Plan,
    check_truncation,
    parse_classes,
    plan_interpolation,
    plan_samples,
)
from hamgan.sampling.classes import numbers_in

MOST_IMAGES = 64
"""Images that one request may have drawn."""
MOST_FRAMES = 60
"""Images from one seed of a walk to the other."""
MOST_ENLARGEMENT = 8
MOST_PIXELS = 2**24
"""Of a sheet, or of all frames of a film: 64 images of 512 x 512."""
LARGEST_SEED = 2**53 - 1
"""Browsers count exactly no further."""
LONGEST_TEXT = 200
"""Characters of a class or of seeds."""


@dataclass(frozen=True)
class Request:
    """A checked request: what is drawn, and by how many whole pixels each of its pixels is shown."""

    kind: Literal["sheet", "blend", "walk"]
    plan: Plan
    enlargement: int


def request_samples(
    generator: LoadedGenerator, classes: Any, seeds: Any, per_class: Any, truncation: Any, enlargement: Any
) -> Request:
    """Every class with every seed. Raises ConfigError, a sentence for the visitor, as do all functions here."""
    plan = plan_samples(
        _classes(generator, classes), _seeds(seeds, per_class), [_truncation(truncation)], generator.titles
    )
    return Request("sheet", plan, _checked(generator, plan, enlargement))


def request_blend(
    generator: LoadedGenerator,
    first: Any,
    second: Any,
    percent: Any,
    seeds: Any,
    per_class: Any,
    truncation: Any,
    enlargement: Any,
) -> Request:
    """A row of the first class, one of the blend with ``percent`` of the second class, one of the second class."""
    labels = [_single_class(generator, first), _single_class(generator, second)]
    share, numbers, strength = _within(percent, "percent", 0, 100), _seeds(seeds, per_class), _truncation(truncation)
    ends = plan_samples(labels, numbers, [strength], generator.titles)
    blend = [Picture(seed, labels[0], strength, next_label=labels[1], fraction=share / 100) for seed in numbers]
    title = f"{100 - share:g} % {ends.titles[0]}, {share:g} % {ends.titles[1]}"
    names = [f"blend-seed{seed:06d}" for seed in numbers]
    plan = Plan(
        [ends.rows[0], blend, ends.rows[1]],
        [ends.titles[0], title, ends.titles[1]],
        [ends.names[0], names, ends.names[1]],
    )
    return Request("blend", plan, _checked(generator, plan, enlargement))


def request_walk(
    generator: LoadedGenerator,
    name: Any,
    first_seed: Any,
    second_seed: Any,
    frames: Any,
    truncation: Any,
    enlargement: Any,
) -> Request:
    """One row of ``frames`` images from one seed to the other, both among them, for a film there and back."""
    label = _single_class(generator, name)
    seeds = [_whole(first_seed, "first seed", 0, LARGEST_SEED), _whole(second_seed, "second seed", 0, LARGEST_SEED)]
    steps = _whole(frames, "frames", 2, MOST_FRAMES) - 1
    plan = plan_interpolation(
        "seeds", [label], seeds, _truncation(truncation), generator.titles, frames=steps, closed=False
    )
    return Request("walk", plan, _checked(generator, plan, enlargement, shown=2 * steps))


def _checked(generator: LoadedGenerator, plan: Plan, enlargement: Any, shown: int | None = None) -> int:
    """The enlargement, unless the request is too large; ``shown``: frames of its film."""
    scale, count = _whole(enlargement, "enlargement", 1, MOST_ENLARGEMENT), len(plan.pictures)
    if count > MOST_IMAGES:
        raise ConfigError(f"{len(plan.rows)} x {len(plan.rows[0])} are {count:,} images; at most {MOST_IMAGES} at once")
    side, shown = generator.config.resolution * scale, shown or count
    if shown * side**2 > MOST_PIXELS:
        raise ConfigError(
            f"{shown} images of {side} x {side} pixels are too many for one request: take at most "
            f"{MOST_PIXELS // side**2}, or a smaller enlargement"
        )
    return scale


def _classes(generator: LoadedGenerator, values: Any) -> list[int]:
    chosen = [str(value) for value in (values if isinstance(values, list) else [values]) if value not in (None, "")]
    if not chosen:
        raise ConfigError("no class is chosen")
    classes: list[int] = []
    for text in chosen:  # each may be a range
        classes += parse_classes([_short(text, "class")], generator)
        if len(classes) > MOST_IMAGES:
            raise ConfigError(f"more than {MOST_IMAGES} classes are chosen; at most {MOST_IMAGES} images at once")
    return classes


def _single_class(generator: LoadedGenerator, value: Any) -> int:
    classes = _classes(generator, value)
    if len(classes) > 1:
        raise ConfigError(f"{value!r} are {len(classes)} classes; choose one")
    return classes[0]


def _seeds(text: Any, count: Any) -> list[int]:
    """As listed (``0-3,12``); a single number starts a series of ``count``."""
    numbers = list(itertools.islice(numbers_in(_short(str(text), "seeds"), "seed range"), MOST_IMAGES + 1))
    if len(numbers) > MOST_IMAGES:
        raise ConfigError(f"{text!r} are more than {MOST_IMAGES} seeds; at most {MOST_IMAGES} images at once")
    if max(numbers) > LARGEST_SEED:
        raise ConfigError(f"seed {max(numbers)} is too large; the largest is {LARGEST_SEED}")
    if len(numbers) > 1:
        return numbers
    return [numbers[0] + index for index in range(_whole(count, "images per class", 1, MOST_IMAGES))]


def _truncation(value: Any) -> float:
    truncation = _number(value, "truncation")
    check_truncation(truncation)
    return truncation


def _short(text: str, what: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise ConfigError(f"{what}: {len(text):,} characters are too many; at most {LONGEST_TEXT}")
    return text


def _whole(value: Any, what: str, least: int, most: int) -> int:
    number = _within(value, what, least, most)
    if number != int(number):
        raise ConfigError(f"{what} is {number}; give a whole number")
    return int(number)


def _within(value: Any, what: str, least: int, most: int) -> float:
    number = _number(value, what)
    if not least <= number <= most:
        raise ConfigError(f"{what} is {number}; allowed: {least} to {most}")
    return number


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{what}: give a number")
    return value
