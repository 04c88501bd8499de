"""Draw latents for seeds, truncated or not, and interpolate between them on great circles."""

import operator
from collections.abc import Iterable
from functools import lru_cache
from typing import SupportsIndex

import torch
from torch import Tensor

from hamgan.errors import ConfigError

SMALLEST_TRUNCATION = 0.001
SEEDS = 2**32
"""Number of different seeds: torch's CPU generator uses only the low 32 bits, so others would repeat."""


def truncated_latent(seed: int, size: int, truncation: float = 1.0) -> Tensor:
    """Draw z [size] for one seed from N(0, 1), resampling values beyond ``truncation`` (Brock et al. 2019, 3.1).

    The latent depends only on the seed, never on the batch. As usual, a truncation of 1 or more does not truncate.
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(size, generator=generator)
    while truncation < 1.0 and bool((outside := z.abs() > truncation).any()):
        z = torch.where(outside, torch.randn(size, generator=generator), z)
    return z


def check_truncation(truncation: float) -> None:
    """Raise ConfigError unless resampling ends: it takes some 1 / truncation rounds."""
    if not truncation >= SMALLEST_TRUNCATION:
        raise ConfigError(
            f"truncation is {truncation}; it must be above 0 ({SMALLEST_TRUNCATION} at least; 1 or more: no truncation)"
        )


def check_seeds(seeds: Iterable[object]) -> list[int]:
    """Return seeds as ints; ConfigError for a value that is no seed."""
    numbers = []
    for seed in seeds:
        number = operator.index(seed) if isinstance(seed, SupportsIndex) else -1
        if not 0 <= number < SEEDS:
            raise ConfigError(f"seed {seed!r}: give whole numbers from 0 to {SEEDS - 1}")
        numbers.append(number)
    return numbers


def slerp(first: Tensor, second: Tensor, fraction: float) -> Tensor:
    """Interpolate from first [n] (fraction 0) to second [n] (1) on a great circle, which keeps the norm of N(0, 1)."""
    cosine = torch.dot(first, second) / (first.norm() * second.norm()).clamp_min(1e-12)
    angle = torch.acos(cosine.clamp(-1.0, 1.0))
    if float(angle.sin()) < 1e-4:  # the same direction, or opposite ones, which have no shortest circle
        return torch.lerp(first, second, fraction)
    return (torch.sin((1 - fraction) * angle) * first + torch.sin(fraction * angle) * second) / torch.sin(angle)


@lru_cache(maxsize=4096)
def latent_between(seed: int, other: int | None, fraction: float, size: int, truncation: float) -> Tensor:
    """Return z [size] of a seed, or interpolated towards another seed's by ``fraction``."""
    z = truncated_latent(seed, size, truncation)
    if other is None or fraction == 0:
        return z
    return slerp(z, truncated_latent(other, size, truncation), fraction)
