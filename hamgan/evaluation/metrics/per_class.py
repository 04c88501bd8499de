"""Compare samples with real images per class: distance, diversity, and confusion with other classes."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from hamgan.files import JsonObject

ROWS_AT_ONCE = 8192
"""Number of features that are converted to float64 together: 134 MB of Inception's."""
COLUMNS = ("samples", "reference", "distance", "diversity", "leakage", "leakage_real")
"""Columns of the table of all classes."""
EXTREMES = 5
"""Number of best and worst classes, and of confused pairs, in a row."""


@dataclass(frozen=True)
class ClassMoments:
    """Hold count [C], mean feature [C, D] and trace of the unbiased covariance [C] of every class, float64."""

    count: Tensor
    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, classes: int) -> "ClassMoments":
        """Compute the moments of features [N, D] with class indices [N]; NaN for classes with too few images."""
        count = torch.bincount(labels, minlength=classes).double()
        total = torch.zeros(classes, features.shape[1], dtype=torch.float64)
        for rows, own in _parts(features, labels):
            total.index_add_(0, own, rows)
        mean, squares = total / count[:, None], torch.zeros(classes, dtype=torch.float64)
        for rows, own in _parts(features, labels):
            squares.index_add_(0, own, ((rows - mean[own]) ** 2).sum(1))
        return cls(count, mean, squares / (count - 1).clamp_min(0))


def _parts(features: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    parts = zip(features.cpu().split(ROWS_AT_ONCE), labels.cpu().split(ROWS_AT_ONCE), strict=True)
    return ((rows.double(), own) for rows, own in parts)


@dataclass(frozen=True)
class ByClass:
    """Hold the figures of C classes, float64 [C]; NaN for classes with fewer than two images on a side."""

    samples: Tensor
    reference: Tensor
    """Numbers of images, int64 [C]."""
    distance: Tensor
    """Squared distance of the mean features, corrected for the number of samples: it may be slightly negative."""
    diversity: Tensor
    """Root mean square distance between two generated images of the class, divided by that between two real ones: 0 for
    copies of one image, 1 for real images. Odena et al. 2017 (section 4.2) compare pairs by MS-SSIM, Zhu et al. 2017
    and Yang et al. 2019 by LPIPS; here the distance is that of the extractor's features. Artefacts that differ
    between images count as diversity, so consider the distance as well."""
    confusion: Tensor
    """Share of the samples of a class (row) nearest to the real mean feature of each class (column), [C, C]."""
    confusion_real: Tensor
    """The same for real images, each left out of its own class's mean: the classifier's own confusion."""

    @property
    def known(self) -> Tensor:
        """Return which classes have at least two images on both sides, bool [C]."""
        return self.distance.isfinite()

    @property
    def leakage(self) -> Tensor:
        """Return the share of each class's samples that are classified as another class."""
        return 1 - self.confusion.diagonal()

    @property
    def leakage_real(self) -> Tensor:
        """Return the same share for real images."""
        return 1 - self.confusion_real.diagonal()


def compare_classes(
    features: Tensor, labels: Tensor, reference: Tensor, reference_labels: Tensor, classes: int
) -> ByClass:
    """Compare generated with real images per class.

    Shapes: features [N, D] and [M, D], class indices [N] and [M]. Needs memory for two matrices of classes².
    """
    found, real = (ClassMoments.of(*side, classes) for side in ((features, labels), (reference, reference_labels)))
    # tr(C1) / n1 + tr(C2) / n2 is the expected squared distance of two means of the same distribution. Subtracting it
    # makes classes with few images comparable with others.
    distance = ((found.mean - real.mean) ** 2).sum(1) - found.spread / found.count - real.spread / real.count
    return ByClass(
        found.count.long(),
        real.count.long(),
        distance,
        # The mean square distance between two images is twice the trace.
        torch.where(real.spread > 0, (found.spread / real.spread).sqrt(), torch.nan),
        _confusion(labels, nearest_class(features, real), classes),
        _confusion(reference_labels, nearest_class(reference, real, reference_labels), classes),
    )


def nearest_class(features: Tensor, real: ClassMoments, left_out: Tensor | None = None) -> Tensor:
    """Return the class with the nearest real mean for each of the features [N, D], int64 [N].

    Classes without images are never returned. With ``left_out`` [N] the features are real ones of these classes and
    left out of their means: with n images the difference from the own mean grows by n / (n - 1).
    """
    predicted, own_classes = [], torch.zeros(len(features), dtype=torch.int64) if left_out is None else left_out
    present = real.count.nonzero().flatten()
    row_of = torch.full((len(real.count),), -1).index_copy_(0, present, torch.arange(len(present)))
    for rows, labels in _parts(features, own_classes):
        distance = torch.cdist(rows, real.mean[present])
        if left_out is not None:
            own, count = row_of[labels][:, None], real.count[labels][:, None]
            distance.scatter_(1, own, (distance.gather(1, own) * count / (count - 1)).nan_to_num_(torch.inf))
        predicted.append(present[distance.argmin(1)])
    return torch.cat(predicted)


def _confusion(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    counts = torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes).double()
    return counts / counts.sum(1, keepdim=True)


def class_numbers(classes: ByClass, names: list[str]) -> JsonObject:
    """Return averages over classes, the extremes by name, and the tables ``class_table`` and ``class_confusions``."""
    nearest, alike = _in_order(classes.distance), _in_order(classes.diversity)
    return {
        "class_distance": _mean(classes.distance, classes),
        "class_diversity": _mean(classes.diversity, classes),
        "class_leakage": _mean(classes.leakage, classes),
        "class_leakage_real": _mean(classes.leakage_real, classes),
        "classes_left_out": _left_out(classes, names),
        "best_classes": [f"{names[index]} {classes.distance[index]:.4g}" for index in nearest[:EXTREMES]],
        "worst_classes": [f"{names[index]} {classes.distance[index]:.4g}" for index in nearest[: -EXTREMES - 1 : -1]],
        "least_diverse_classes": [f"{names[index]} {classes.diversity[index]:.3g}" for index in alike[:EXTREMES]],
        "most_confused_classes": _most_confused(classes, names),
        "class_table": _class_table(classes, names),
        "class_confusions": _confusions(classes, names),
    }


def _mean(figures: Tensor, classes: ByClass) -> float | None:
    """Return the average over the classes that have a figure; None if none has."""
    mean = float(figures[classes.known].nanmean())
    return mean if isfinite(mean) else None


def _left_out(classes: ByClass, names: list[str]) -> str | None:
    """Describe the classes that are left out of averages, with their numbers of images; None if there are none."""
    alone = [index for index, known in enumerate(classes.known.tolist()) if not known]
    alike = [index for index in classes.known.nonzero().flatten().tolist() if not classes.diversity[index].isfinite()]
    parts = []
    if alone:
        counts = [f"{names[i]} ({classes.samples[i]} and {classes.reference[i]})" for i in alone[:EXTREMES]]
        what = "with fewer than two images on a side (samples and reference)"
        parts.append(f"{len(alone)} of {len(names)} classes {what}: {', '.join(counts)}{_dots(alone)}")
    if alike:
        some = ", ".join(names[index] for index in alike[:EXTREMES])
        parts.append(f"of diversity {len(alike)} classes whose real images are all the same: {some}{_dots(alike)}")
    return "; ".join(parts) or None


def _dots(indices: list[int]) -> str:
    return ", ..." if len(indices) > EXTREMES else ""


def _in_order(figures: Tensor) -> list[int]:
    """Return the indices of the classes that have a figure, the smallest first."""
    return [index for index in figures.argsort().tolist() if figures[index].isfinite()]


def _most_confused(classes: ByClass, names: list[str]) -> list[str]:
    """Describe the pairs of classes that samples confuse most, beyond the classifier's confusion of real images."""
    excess = (classes.confusion - classes.confusion_real).nan_to_num(0.0).fill_diagonal_(0.0)
    found = []
    for position in excess.flatten().topk(min(EXTREMES, excess.numel())).indices.tolist():
        row, column = divmod(position, len(names))
        share, usual = classes.confusion[row, column], classes.confusion_real[row, column]
        if share > usual:
            found.append(f"{names[row]} as {names[column]} {share:.1%} (real images {usual:.1%})")
    return found


def _class_table(classes: ByClass, names: list[str]) -> list[JsonObject]:
    """Return a row per class, with None for missing figures, since JSON has no NaN."""
    columns = [getattr(classes, name).tolist() for name in COLUMNS]
    return [
        {"class": name} | {key: value if isfinite(value) else None for key, value in zip(COLUMNS, row, strict=True)}
        for name, *row in zip(names, *columns, strict=True)
    ]


def _confusions(classes: ByClass, names: list[str]) -> list[JsonObject]:
    """Return the non-zero entries of both matrices, since few of ImageNet's million pairs of classes occur."""
    generated, real = classes.confusion.nan_to_num(0.0), classes.confusion_real.nan_to_num(0.0)
    return [
        {
            "class": names[row],
            "taken_for": names[column],
            "share": float(generated[row, column]),
            "share_real": float(real[row, column]),
        }
        for row, column in ((generated > 0) | (real > 0)).nonzero().tolist()
    ]
