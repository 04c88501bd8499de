"""Compare two generators, or sets of images, by the same metrics, with confidence intervals."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import t

from hamgan.errors import ConfigError
from hamgan.evaluation.by_extractor import Evaluation, check_memory, measure_samples
from hamgan.evaluation.inputs.images import Images, Subset
from hamgan.evaluation.inputs.samples import Samples, load_samples
from hamgan.evaluation.metrics.standard_error import standard_errors
from hamgan.evaluation.protocol import Protocol
from hamgan.evaluation.reference import Reference
from hamgan.evaluation.report import HIGHER_IS_BETTER, LOWER_IS_BETTER, NAMES, name_network, save_table, split_key
from hamgan.evaluation.statistics import FeatureStatistics, Resources
from hamgan.files import JsonObject

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SURE = 0.95
"""Confidence above which a difference is significant."""


@dataclass(frozen=True)
class Difference:
    """Hold one metric of both sides, A and B, per seed, and the standard error of the difference of their means."""

    key: str
    a: list[float]
    b: list[float]
    standard_error: float | None
    """From halved samples, else from the spread over seeds; None if there is neither."""
    freedom: float
    """Degrees of freedom of the standard error; infinite for halved samples."""
    network: str = ""

    @property
    def title(self) -> str:
        """Return the metric's name, with its extractor if that is not the usual one."""
        name, suffix = split_key(self.key)
        return NAMES.get(name or "", self.key) + name_network(self.network, suffix)

    @property
    def mean(self) -> float:
        """Return the mean of A minus B."""
        return sum(self.a) / len(self.a) - sum(self.b) / len(self.b)

    @property
    def margin(self) -> float | None:
        """Return half the width of the confidence interval of the difference, at the level `SURE`."""
        if self.standard_error is None:
            return None
        return float(t.ppf((1 + SURE) / 2, self.freedom)) * self.standard_error

    @property
    def better(self) -> str:
        """Return the better side: A, B, or neither if they are equal."""
        lower_is_better = split_key(self.key)[0] in LOWER_IS_BETTER
        return "neither" if self.mean == 0 else "A" if (self.mean < 0) == lower_is_better else "B"

    @property
    def confidence(self) -> float | None:
        """Return the confidence, 0.5 to 1, that the better side is better on other samples too."""
        if self.standard_error is None or self.better == "neither":
            return None
        if self.standard_error == 0:
            return 1.0
        return float(t.cdf(abs(self.mean) / self.standard_error, self.freedom))

    @property
    def verdict(self) -> str:
        """Return in words which side is better, and with what confidence."""
        if self.better == "neither":
            return "equal"
        if self.confidence is None:
            return f"{self.better} is better here; the confidence needs more seeds or --resamples"
        sure = f"{min(self.confidence, 0.9999):.2%}".replace(".00%", "%")
        known = self.margin is not None and abs(self.mean) > self.margin
        return f"{self.better} is better (confidence {sure})" if known else f"not told apart ({self.better}: {sure})"


def compare(
    samples: tuple[Samples, Samples], reference: Reference | None, parts: Sequence[tuple[Protocol, Resources]]
) -> tuple[list[Difference], list[JsonObject]]:
    """Measure both sides with each extractor and the same seeds; returns the differences and both sides' rows.

    Two generators draw the same latents and classes, and their samples are halved alike, so what they have in common
    cancels. Raises ConfigError for sides that cannot be compared.
    """
    sides = [[Evaluation(side, reference, *part) for part in parts] for side in samples]
    check_memory([evaluation for side in sides for evaluation in side])
    measured: list[_Measured] = [_Measured() for _ in parts]
    for repeat in range(parts[0][0].repeats):
        found = [measure_samples(side, repeat) for side in sides]
        for one, a, b, found_a, found_b in zip(measured, *sides, *found, strict=True):
            one.add(a, b, found_a, found_b)
    differences: list[Difference] = []
    rows: list[JsonObject] = []
    for one, a, b, found_a, found_b in zip(measured, *sides, *found, strict=True):
        extractor = a.resources.extractor
        differences += [
            replace(difference, key=extractor.key(difference.key), network=extractor.architecture.label)
            for difference in _differences(one.of_a, one.of_b, one.errors)
        ]
        rows += [a.make_row(found_a, one.of_a), b.make_row(found_b, one.of_b)]
    return differences, rows


@dataclass
class _Measured:
    """Hold the metrics of both sides by one extractor, and the standard errors of their differences, per seed."""

    of_a: list[JsonObject] = field(default_factory=list)
    of_b: list[JsonObject] = field(default_factory=list)
    errors: list[dict[str, float]] = field(default_factory=list)

    def add(self, a: Evaluation, b: Evaluation, found_a: FeatureStatistics, found_b: FeatureStatistics) -> None:
        """Add the numbers of one seed."""
        stream = 0 if _are_paired(found_a, found_b) else 1
        halved = zip(a.half_differences(found_a), b.half_differences(found_b, stream), strict=True)
        self.errors.append(standard_errors([_subtract(of_a, of_b) for of_a, of_b in halved]))
        self.of_a.append(a.compute(found_a))
        self.of_b.append(b.compute(found_b))


def _are_paired(a: FeatureStatistics, b: FeatureStatistics) -> bool:
    """Return whether sample i has the same latent and class on both sides; ConfigError for images of other sizes."""
    sizes = [one.description["resolution"] for one in (a, b)]
    if sizes[0] != sizes[1]:
        raise ConfigError(f"A has images of {sizes[0]} pixels, B of {sizes[1]}: each would need another reference")
    generated = all(one.description["kind"] == "generator" for one in (a, b))
    return generated and a.labels is not None and b.labels is not None and torch.equal(a.labels, b.labels)


def _subtract(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {name: a[name] - b[name] for name in a}


def _differences(
    numbers_a: list[JsonObject], numbers_b: list[JsonObject], errors: list[dict[str, float]]
) -> list[Difference]:
    """Return the difference of every metric that has a better direction, with its key without an extractor."""
    found = []
    for name in numbers_a[0]:
        if name not in HIGHER_IS_BETTER | LOWER_IS_BETTER:
            continue
        a, b = ([float(numbers[name]) for numbers in side] for side in (numbers_a, numbers_b))
        seeds, freedom = len(a), math.inf
        error = None
        if all(name in one for one in errors):
            error = math.sqrt(sum(one[name] ** 2 for one in errors)) / seeds
        elif seeds > 1:
            error, freedom = float(np.std(np.subtract(a, b), ddof=1)) / math.sqrt(seeds), seeds - 1
        found.append(Difference(name, a, b, error, freedom))
    return found


def equal_sides(
    samples: Sequence[Samples], protocol: Protocol, device: torch.device
) -> tuple[tuple[Samples, Samples], Protocol]:
    """Load both sides with the same number of samples, because FID depends on it.

    Fixed sets of images have one "seed" and are cut to the smaller one's size; a generator draws as many as a fixed
    set.
    """
    loaded = [load_samples(side, protocol, device) for side in samples]
    counts = [len(side) for side in loaded if isinstance(side, Images)]
    if counts:
        protocol = replace(protocol, num_samples=min(counts), repeats=1)
    a, b = (
        Subset(side, protocol.num_samples) if isinstance(side, Images) and len(side) > protocol.num_samples else side
        for side in loaded
    )
    return (a, b), protocol


def save_comparison(differences: Sequence[Difference], rows: Sequence[JsonObject], picture: Path) -> list[Path]:
    """Draw the metrics and their differences (PNG), and write them as a table (CSV); returns both paths."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    _draw(differences, rows, picture)
    table = [
        {
            "number": one.key,
            "a": sum(one.a) / len(one.a),
            "b": sum(one.b) / len(one.b),
            "difference": one.mean,
            "standard_error": one.standard_error,
            "low": one.mean - one.margin if one.margin is not None else None,
            "high": one.mean + one.margin if one.margin is not None else None,
            "better": one.better,
            "confidence": one.confidence,
            "seeds": len(one.a),
        }
        for one in differences
    ]
    return [picture, save_table(table, picture.with_suffix(".csv"))]


def describe_difference(one: Difference) -> str:
    """Return the line to print for a difference."""
    a, b = sum(one.a) / len(one.a), sum(one.b) / len(one.b)
    margin = f" ± {one.margin:.2g}" if one.margin is not None else ""
    return f"{one.title}: A {a:.5g}, B {b:.5g}, A - B {one.mean:.3g}{margin}: {one.verdict}"


def _draw(differences: Sequence[Difference], rows: Sequence[JsonObject], picture: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (9, 0.6 + 1.5 * len(differences))
    figure, axes = pyplot.subplots(len(differences), 2, figsize=size, layout="constrained", squeeze=False)
    for one, (values, difference) in zip(differences, axes, strict=True):
        _draw_values(one, values)
        _draw_difference(one, difference)
    axes[0, 0].legend(loc="best", fontsize=7)
    names = [f"{side}: {row['samples']}" for side, row in zip("AB", rows, strict=False)]
    lines = [
        line for text in [*names, *dict.fromkeys(row["protocol"] for row in rows)] for line in textwrap.wrap(text, 150)
    ]
    figure.text(0.01, -0.1 / size[1], "\n".join(lines), fontsize=6, va="top")
    figure.savefig(picture, dpi=150, bbox_inches="tight")
    pyplot.close(figure)


def _draw_values(one: Difference, axes: "Axes") -> None:
    """Draw a line per side over the seeds."""
    for label, values, colour in (("A", one.a, "C0"), ("B", one.b, "C1")):
        axes.plot(range(len(values)), values, marker="o", color=colour, label=label)
    axes.set_xticks(range(len(one.a)), [f"seed {index + 1}" for index in range(len(one.a))], fontsize=7)
    axes.set_title(one.title, fontsize=8)
    axes.margins(x=0.2, y=0.3)


def _draw_difference(one: Difference, axes: "Axes") -> None:
    """Draw the difference with its interval, and a line at 0."""
    axes.errorbar([one.mean], [0], xerr=one.margin, fmt="o", capsize=4, color="black")
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_yticks([])
    axes.set_xlabel(f"A - B, interval of {SURE:.0%}", fontsize=7)
    axes.set_title(one.verdict, fontsize=8)
