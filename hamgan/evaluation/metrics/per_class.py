"""Class by class: how far from the real images, how diverse, and how often taken for another class."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS_AT_ONCE = 8192
"""Features that are widened to float64 together: 134 MB of Inception's."""


@dataclass(frozen=True)
class ClassMoments:
    """Of every class: count [C], mean feature [C, D] and trace of the unbiased covariance [C], float64."""

    count: Tensor
    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, classes: int) -> "ClassMoments":
        """Moments of features [N, D] with class indices [N]; NaN where a class has too few images."""
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
    """The figures of C classes, float64 [C]; NaN where a class has fewer than two images on a side."""

    samples: Tensor
    reference: Tensor
    """Numbers of images, int64 [C]."""
    distance: Tensor
    """Squared distance of the mean features, less what finite samples add to it: small values may be negative."""
    diversity: Tensor
    """Root mean square distance of two generated images of the class over that of two real ones: 0 for a single image
    again and again, 1 for real images. Odena et al. 2017 (section 4.2) compare classes so by MS-SSIM of pairs, Zhu et
    al. 2017 and Yang et al. 2019 by LPIPS of pairs; here the distance is that of the extractor's features. Artefacts
    that differ from image to image count as diversity: read it beside the distance."""
    confusion: Tensor
    """[C, C]: which share of the samples of a class (row) is nearest to the real mean feature of which (column)."""
    confusion_real: Tensor
    """The same for the real images, each of them left out of its own class's mean: what the classifier itself mixes."""

    @property
    def known(self) -> Tensor:
        """Whether a class has two images or more on both sides, bool [C]."""
        return self.distance.isfinite()

    @property
    def leakage(self) -> Tensor:
        """Share of the samples of a class that are taken for another one."""
        return 1 - self.confusion.diagonal()

    @property
    def leakage_real(self) -> Tensor:
        """The same of the real images."""
        return 1 - self.confusion_real.diagonal()


def compare_classes(
    features: Tensor, labels: Tensor, reference: Tensor, reference_labels: Tensor, classes: int
) -> ByClass:
    """Compare generated with real images class by class.

    Shapes: features [N, D] and [M, D], class indices [N] and [M]. Memory: two matrices of classes².
    """
    found, real = (ClassMoments.of(*side, classes) for side in ((features, labels), (reference, reference_labels)))
    # tr(C1) / n1 + tr(C2) / n2 is the squared distance of two means of the same distribution: classes with few images
    # can be compared with others without it.
    distance = ((found.mean - real.mean) ** 2).sum(1) - found.spread / found.count - real.spread / real.count
    return ByClass(
        found.count.long(),
        real.count.long(),
        distance,
        # The mean square distance of two images is twice the trace.
        torch.where(real.spread > 0, (found.spread / real.spread).sqrt(), torch.nan),
        _confusion(labels, recognise(features, real), classes),
        _confusion(reference_labels, recognise(reference, real, reference_labels), classes),
    )


def recognise(features: Tensor, real: ClassMoments, left_out: Tensor | None = None) -> Tensor:
    """The class whose real mean is nearest to each of the features [N, D]: int64 [N]; never one without real images.

    With ``left_out`` [N] the features are real ones of these classes, compared with means that do not hold them: with
    n images the distance to one's own mean grows by n / (n - 1).
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


def nearest_class_mean(train_features: Tensor, train_labels: Tensor, features: Tensor, labels: Tensor) -> float:
    """The share of `features` [N, D] whose nearest class mean of `train_features` [M, D] is that of their own label.

    Labels are class indices [M] and [N]; a class without training features is never predicted.
    """
    train = ClassMoments.of(train_features, train_labels, int(train_labels.max()) + 1)
    return float((recognise(features, train) == labels.cpu()).double().mean())


def _confusion(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    counts = torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes).double()
    return counts / counts.sum(1, keepdim=True)
