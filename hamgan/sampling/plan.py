"""Plan which images to draw: all pairs of class and seed, truncation sweeps, interpolations."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hamgan.errors import ConfigError
from hamgan.sampling.generator import LoadedGenerator
from hamgan.sampling.latents import check_truncation, latent_between

Between = Literal["seeds", "classes"]


@dataclass(frozen=True)
class PlannedImage:
    """Describe one image: a seed and a class, or a point between two seeds or classes."""

    seed: int
    label: int
    truncation: float = 1.0
    next_seed: int | None = None
    next_label: int | None = None
    fraction: float = 0.0
    """Position between this seed or class (0) and the next one (1)."""


@dataclass
class Plan:
    """Hold rows of images, as on a sheet, with their titles and file names."""

    rows: list[list[PlannedImage]]
    titles: list[str]
    names: list[list[str]]
    groups: list[tuple[str, int]] = field(default_factory=list)
    """Titles of groups of columns, each with its number of columns."""
    columns: list[str] = field(default_factory=list)
    """A heading per column; empty if rows have different seeds."""
    way: str = ""
    """Description of an interpolation, from its start to its end."""

    @property
    def images(self) -> list[PlannedImage]:
        """Return all images, row by row."""
        return list(itertools.chain.from_iterable(self.rows))

    @property
    def labels(self) -> list[int] | None:
        """Return the class of every image, row by row; None if classes are blended."""
        blended = any(image.next_label is not None for image in self.images)
        return None if blended else [image.label for image in self.images]


def plan_samples(
    classes: Sequence[int],
    seeds: Sequence[int],
    truncations: Sequence[float],
    titles: Sequence[str],
    per_class: int | None = None,
) -> Plan:
    """Plan a row per class with all seeds, or with ``per_class`` different seeds each; truncations are side by side.

    ``titles`` has the names of all classes of the generator. Duplicates are drawn once. Raises ConfigError for too few
    seeds or a wrong truncation.
    """
    classes, seeds = list(dict.fromkeys(classes)), list(dict.fromkeys(seeds))
    truncations = list(dict.fromkeys(truncations))
    for truncation in truncations:
        check_truncation(truncation)
    seeds_of_rows = _seeds_of_rows(len(classes), seeds, per_class)
    several = len(truncations) > 1
    rows = [
        [PlannedImage(seed, label, truncation) for truncation in truncations for seed in row]
        for label, row in zip(classes, seeds_of_rows, strict=True)
    ]
    names = [
        [f"{i.label:04d}-seed{i.seed:06d}" + (f"-truncation{i.truncation:g}" if several else "") for i in row]
        for row in rows
    ]
    groups = [(f"truncation {value:g}", len(seeds_of_rows[0])) for value in truncations] if several and rows else []
    columns = [f"seed {seed}" for _ in truncations for seed in seeds] if per_class is None else []
    return Plan(rows, [titles[label] for label in classes], names, groups, columns)


def _seeds_of_rows(count: int, seeds: Sequence[int], per_class: int | None) -> list[Sequence[int]]:
    if per_class is None:
        return [seeds] * count
    if per_class < 1:
        raise ConfigError(f"per-class is {per_class}; it must be 1 or more")
    if len(seeds) < per_class * count:
        raise ConfigError(
            f"{count} classes with {per_class} seeds of their own need {per_class * count} seeds; "
            f"there are {len(seeds)}"
        )
    return [seeds[row * per_class : (row + 1) * per_class] for row in range(count)]


def plan_interpolation(
    between: Between,
    classes: Sequence[int],
    seeds: Sequence[int],
    truncation: float,
    titles: Sequence[str],
    frames: int,
    closed: bool,
) -> Plan:
    """Plan ``frames`` images from each seed (or class) to the next one.

    Between seeds there is a row per class, between classes a row per seed, including duplicates. ``closed`` returns to
    the start and ends one image before it, for looping animations; otherwise both ends are drawn. Raises ConfigError
    for fewer than two seeds (or classes).
    """
    check_truncation(truncation)
    if frames < 1:
        raise ConfigError(f"frames is {frames}; it must be 1 or more")
    stations = seeds if between == "seeds" else classes
    if len(stations) < 2:
        raise ConfigError(f"a way between {between} needs two {between} or more; {len(stations)} given")
    way = list(_steps(stations, frames, closed))
    if between == "seeds":
        own = list(dict.fromkeys(classes))
        rows = [[PlannedImage(a, label, truncation, next_seed=b, fraction=f) for a, b, f in way] for label in own]
        shown, ends = [titles[label] for label in own], [f"seed {seed}" for seed in stations]
    else:
        own = list(dict.fromkeys(seeds))
        rows = [[PlannedImage(seed, a, truncation, next_label=b, fraction=f) for a, b, f in way] for seed in own]
        shown, ends = [f"seed {seed}" for seed in own], [titles[label] for label in stations]
    columns = [f"{100 * f:.0f} %" if f % 1 else ends[index // frames] for index, (_, _, f) in enumerate(way)]
    names = [[f"{row:04d}-{column:06d}" for column in range(len(way))] for row in range(len(rows))]
    return Plan(rows, shown, names, columns=columns, way=" → ".join(ends + ends[:1] * closed))


def _steps(stations: Sequence[int], frames: int, closed: bool) -> Iterator[tuple[int, int, float]]:
    """Yield (seed or class, next seed or class, fraction between them)."""
    ends = [*stations[1:], stations[0]] if closed else stations[1:]
    for here, there in zip(stations, ends, strict=False):
        for frame in range(frames):
            yield here, there, frame / frames
    if not closed:
        yield stations[-2], stations[-1], 1.0


def inputs(images: Sequence[PlannedImage], generator: LoadedGenerator) -> tuple[Tensor, Tensor]:
    """Return z [B, latent_dim] and labels [B], or weights [B, classes] if an image is between classes."""
    size = generator.config.generator.latent_dim
    z = torch.stack([latent_between(i.seed, i.next_seed, i.fraction, size, i.truncation) for i in images])
    labels = torch.tensor([image.label for image in images])
    if all(image.next_label is None for image in images):
        return z, labels
    others = torch.tensor([i.label if i.next_label is None else i.next_label for i in images])
    fractions = torch.tensor([[image.fraction] for image in images])
    first, second = (F.one_hot(rows, generator.num_classes).float() for rows in (labels, others))
    return z, torch.lerp(first, second, fractions)


def draw(
    generator: LoadedGenerator, images: Sequence[PlannedImage], batch_size: int = 64
) -> Iterator[tuple[int, Tensor]]:
    """Draw batches in order; yields (index of the first image, uint8 [b, 3, H, W] on the CPU)."""
    for start in range(0, len(images), batch_size):
        yield start, generator.images(*inputs(images[start : start + batch_size], generator)).cpu()
