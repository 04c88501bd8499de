"""Which pictures are drawn: every class with every seed, truncation sweeps, ways between seeds or classes."""

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
class Picture:
    """One image: a seed and a class, or a point on the way to another seed or class."""

    seed: int
    label: int
    truncation: float = 1.0
    next_seed: int | None = None
    next_label: int | None = None
    fraction: float = 0.0
    """How far it is to the next seed or class: 0 to 1."""


@dataclass
class Plan:
    """Rows of pictures, as on a sheet, with the names of their files."""

    rows: list[list[Picture]]
    titles: list[str]
    names: list[list[str]]
    groups: list[tuple[str, int]] = field(default_factory=list)
    """Stretches of columns with a title each."""

    @property
    def pictures(self) -> list[Picture]:
        """All of them, row by row."""
        return list(itertools.chain.from_iterable(self.rows))

    @property
    def labels(self) -> list[int] | None:
        """A class per picture, row by row; None where classes are blended."""
        pictures = self.pictures
        blended = any(picture.next_label is not None for picture in pictures)
        return None if blended else [picture.label for picture in pictures]


def plan_samples(
    classes: Sequence[int],
    seeds: Sequence[int],
    truncations: Sequence[float],
    titles: Sequence[str],
    per_class: int | None = None,
) -> Plan:
    """A row per class: every class with every seed, or with ``per_class`` seeds of its own; truncations side by side.

    Args: ``titles`` name all classes of the generator. Raises ConfigError for too few seeds or a wrong truncation.
    """
    for truncation in truncations:
        check_truncation(truncation)
    own = [list(seeds)] * len(classes)
    if per_class is not None:
        if per_class < 1:
            raise ConfigError(f"per-class is {per_class}; it must be 1 or more")
        if len(seeds) < per_class * len(classes):
            raise ConfigError(
                f"{len(classes)} classes with {per_class} seeds of their own need {per_class * len(classes)} seeds; "
                f"there are {len(seeds)}"
            )
        own = [list(seeds[row * per_class : (row + 1) * per_class]) for row in range(len(classes))]
    several = len(truncations) > 1
    rows, names = [], []
    for label, row in zip(classes, own, strict=True):
        rows.append([Picture(seed, label, truncation) for truncation in truncations for seed in row])
        names.append(
            [
                f"{picture.label:04d}-seed{picture.seed:06d}"
                + (f"-truncation{picture.truncation:g}" if several else "")
                for picture in rows[-1]
            ]
        )
    groups = [(f"truncation {truncation:g}", len(own[0])) for truncation in truncations] if several and own else []
    return Plan(rows, [titles[label] for label in classes], names, groups)


def plan_interpolation(
    between: Between,
    classes: Sequence[int],
    seeds: Sequence[int],
    truncation: float,
    titles: Sequence[str],
    frames: int,
    closed: bool,
) -> Plan:
    """``frames`` pictures from each seed (or class) to the next one.

    Between seeds a row per class; between classes a row per seed. A closed way returns to its start and ends one
    picture before it, as endless films want; an open one shows both ends. ConfigError for fewer than two stations.
    """
    check_truncation(truncation)
    if frames < 1:
        raise ConfigError(f"frames is {frames}; it must be 1 or more")
    stations = list(seeds if between == "seeds" else classes)
    if len(stations) < 2:
        raise ConfigError(f"a way between {between} needs two {between} or more; {len(stations)} given")
    rows = []
    for fixed in classes if between == "seeds" else seeds:
        row = []
        for here, there, fraction in _way(stations, frames, closed):
            if between == "seeds":
                row.append(Picture(here, fixed, truncation, next_seed=there, fraction=fraction))
            else:
                row.append(Picture(fixed, here, truncation, next_label=there, fraction=fraction))
        rows.append(row)
    names = [[f"{row:04d}-{column:06d}" for column in range(len(rows[0]))] for row in range(len(rows))]
    shown = [titles[label] for label in classes] if between == "seeds" else [f"seed {seed}" for seed in seeds]
    return Plan(rows, shown, names)


def _way(stations: Sequence[int], frames: int, closed: bool) -> Iterator[tuple[int, int, float]]:
    ends = [*stations[1:], stations[0]] if closed else stations[1:]
    for here, there in zip(stations, ends, strict=False):
        for frame in range(frames):
            yield here, there, frame / frames
    if not closed:
        yield stations[-2], stations[-1], 1.0


def inputs(pictures: Sequence[Picture], generator: LoadedGenerator) -> tuple[Tensor, Tensor]:
    """z [B, latent_dim] and labels [B], or weights [B, classes] where a picture stands between classes."""
    size = generator.config.generator.latent_dim
    z = torch.stack([latent_between(p.seed, p.next_seed, p.fraction, size, p.truncation) for p in pictures])
    labels = torch.tensor([picture.label for picture in pictures])
    if all(picture.next_label is None for picture in pictures):
        return z, labels
    others = torch.tensor([p.label if p.next_label is None else p.next_label for p in pictures])
    fractions = torch.tensor([[picture.fraction] for picture in pictures])
    first, second = (F.one_hot(rows, generator.num_classes).float() for rows in (labels, others))
    return z, torch.lerp(first, second, fractions)


def draw(generator: LoadedGenerator, pictures: Sequence[Picture], batch_size: int = 64) -> Iterator[tuple[int, Tensor]]:
    """Batches as (index of the first picture, uint8 [b, 3, H, W] on the CPU), in order."""
    for start in range(0, len(pictures), batch_size):
        yield start, generator.images(*inputs(pictures[start : start + batch_size], generator)).cpu()
