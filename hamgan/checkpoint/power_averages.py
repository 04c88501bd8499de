"""Average G with power functions of time, and combine averages of any length after training.

Karras et al. 2024 (EDM2), section 3 and appendix C. An average with exponent g weighs the parameters of time t by t^g;
its length is the standard deviation of this profile, divided by the time trained.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hamgan.checkpoint.progress import checkpoint_name, position_of
from hamgan.checkpoint.tensors import read_tensors, write_file
from hamgan.errors import CheckpointError

LONGEST = 0.28
"""Largest length: beyond 12^-1/2, the plain mean, early parameters would count more than late ones."""
FORMAT = "hamgan-averages"


@functools.cache
def exponent(length: float) -> float:
    """Return the exponent of the profile of a length (equation 126: the largest root of a cubic polynomial)."""
    square = length**-2
    return float(np.max(np.roots([1.0, 7.0, 16.0 - square, 12.0 - square]).real))


def decay(length: float, before: int, after: int) -> float:
    """Return the decay of an average between the times ``before`` and ``after`` (equation 127)."""
    return float((before / after) ** (exponent(length) + 1.0))


@dataclass(frozen=True)
class Profile:
    """Identify an average by its time, in images, and its length."""

    images: int
    length: float


def coefficients(kept: Sequence[Profile], wanted: Profile) -> tuple[np.ndarray, float]:
    """Return the factors of the kept averages in the best approximation of the wanted one (algorithm 3).

    Least squares of the profiles; the factors add up to 1. Also returns the relative error of the approximated profile
    (L2 norm).
    """
    among = np.array([[_overlap(first, second) for second in kept] for first in kept])
    with_wanted = np.array([_overlap(profile, wanted) for profile in kept])
    scale = 1.0 / np.sqrt(np.diag(among))  # profiles differ in height by orders of magnitude
    solution = np.linalg.lstsq(among * np.outer(scale, scale), with_wanted * scale, rcond=None)[0] * scale
    factors = solution / solution.sum()
    itself = _overlap(wanted, wanted)
    square = factors @ among @ factors - 2 * factors @ with_wanted + itself
    return factors, float(np.sqrt(max(0.0, square) / itself))


def _overlap(first: Profile, second: Profile) -> float:
    """Return the integral of the product of two profiles over their common time."""
    g, h = exponent(first.length), exponent(second.length)
    both, a, b = np.log([min(first.images, second.images), first.images, second.images])
    power = (g + h + 1) * both - (g + 1) * a - (h + 1) * b
    return float((g + 1) * (h + 1) / (g + h + 1) * np.exp(power))


def network_name(length: float) -> str:
    """Return the name of an average among the networks of a step and the tensors of a checkpoint."""
    return f"average_{length:g}"


def is_due(folder: Path, images: int, interval: int) -> bool:
    """Return whether to store the averages now: none were stored in the current interval yet."""
    newest = max((number for number, _ in _list_kept(folder) if number < images), default=0)
    return images // interval > newest // interval


def keep_averages(folder: Path, tensors: Mapping[str, Tensor], lengths: Sequence[float], images: int) -> None:
    """Write the averages in a run's state to FOLDER/NAME.safetensors; raises CheckpointError."""
    names = tuple(f"{network_name(length)}." for length in lengths)
    kept = {name: value for name, value in tensors.items() if name.startswith(names)}
    folder.mkdir(exist_ok=True)
    write_file(folder / f"{checkpoint_name(images)}.safetensors", kept, {"format": FORMAT})


def remove_averages_after(folder: Path, images: int) -> None:
    """Delete the averages after ``images``, when a run is rolled back."""
    for number, path in _list_kept(folder):
        if number > images:
            path.unlink()


def _list_kept(folder: Path) -> list[tuple[int, Path]]:
    found = ((position_of(path.stem), path) for path in folder.glob("*.safetensors"))
    return sorted((images, path) for images, path in found if images is not None)


def combine_averages(
    folder: Path, lengths: Sequence[float], length: float, images: int | None = None
) -> tuple[dict[str, Tensor], int, float]:
    """Return the state of G averaged over a length, from the averages kept in a folder, and its time in images.

    Also returns the relative error of the profile, see `coefficients`. ``images`` is the time, None the newest. Raises
    CheckpointError if too few averages were kept.
    """
    files = [(number, path) for number, path in _list_kept(folder) if images is None or number <= images]
    if not files or (images is not None and images != files[-1][0]):
        there = ", ".join(f"{number / 1000:g}" for number, _ in _list_kept(folder)[-4:])
        raise CheckpointError(f"{folder} has no averages of that time; the last kimg that it has: {there or 'none'}")
    wanted = Profile(files[-1][0], length)
    kept = [Profile(number, each) for number, _ in files for each in lengths]
    found, error = coefficients(kept, wanted)
    factors = iter(found)
    total: dict[str, Tensor] = {}
    for _, path in files:
        for each in lengths:
            part, factor = read_tensors(path, f"{network_name(each)}.")[0], float(next(factors))
            for name, value in part.items():
                share = value.double() * factor
                total[name] = total[name] + share if name in total else share
    if not all(torch.isfinite(value).all() for value in total.values()):
        raise CheckpointError(f"averages in {folder} are not finite")
    return {name: value.float() for name, value in total.items()}, wanted.images, error
