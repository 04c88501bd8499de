"""From feature statistics to named numbers."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hamgan.distributed.group import Processes
from hamgan.errors import ConfigError
from hamgan.evaluation.features.extractor import FeatureExtractor
from hamgan.evaluation.metrics.fid import frechet_distance
from hamgan.evaluation.metrics.fid_infinity import fid_at_infinity
from hamgan.evaluation.metrics.kid import kernel_distance
from hamgan.evaluation.metrics.per_class import compare_classes, nearest_class_mean
from hamgan.evaluation.metrics.precision_recall import precision_recall
from hamgan.evaluation.protocol import Protocol
from hamgan.evaluation.reference import is_statistics_file, reference_statistics
from hamgan.evaluation.statistics import FeatureStatistics
from hamgan.evaluation.studies.classes import class_numbers

TRAIN_IMAGES, TRAIN_IMAGES_PER_CLASS = 1_000, 20
"""Real training images that fit the nearest-class-mean classifier: the larger of both."""


def compute_numbers(
    found: FeatureStatistics, real: FeatureStatistics | None, protocol: Protocol, processes: Processes
) -> dict[str, Any]:
    """The numbers of `protocol.metrics` but class_accuracy, without the extractor's name; the same on every process.

    The main process does what is linear algebra: it cannot be shared out, and the others would only heat the cores.
    """
    numbers: dict[str, Any] = {}
    wanted = protocol.metrics
    if "is" in wanted and found.inception_score:
        numbers["inception_score"], numbers["inception_score_std"] = found.inception_score
    if real is None:
        return numbers
    if processes.is_main:
        if "fid" in wanted:
            numbers["fid"] = frechet_distance(real.mean, real.covariance, found.mean, found.covariance)
        if "fid_inf" in wanted:
            extrapolation = fid_at_infinity(_features(found), real.mean, real.covariance)
            numbers |= {"fid_inf": extrapolation.at_infinity, "fid_inf_residual": extrapolation.residual}
    if "per_class" in wanted:
        numbers |= _per_class(found, real)
    if "kid" in wanted:
        size = min(protocol.kid_subset_size, len(_features(found)), len(_features(real)))
        kid = kernel_distance(_features(found), _features(real), protocol.kid_subsets, size, processes)
        numbers |= {"kid": kid.mean, "kid_std": kid.std}
    if "prc" in wanted:
        if min(len(_features(found)), len(_features(real))) <= protocol.neighbours:
            raise ConfigError(f"precision and recall need more than neighbours = {protocol.neighbours} images a side")
        precision, recall = precision_recall(_features(found), _features(real), protocol.neighbours, processes)
        numbers |= {"precision": precision, "recall": recall}
    return numbers


def _features(statistics: FeatureStatistics) -> Tensor:
    assert statistics.features is not None, "the pass over the images was asked to keep its features"
    return statistics.features


def _per_class(found: FeatureStatistics, real: FeatureStatistics) -> dict[str, Any]:
    if found.labels is None or real.labels is None:
        raise ConfigError("per_class needs classes on both sides: folders of class folders, a data set, a generator")
    labels = match_classes(found, real)
    names = real.class_names or [str(index) for index in range(int(real.labels.max()) + 1)]
    classes = compare_classes(_features(found), labels, _features(real), real.labels, len(names))
    if not bool(classes.known.any()):
        raise ConfigError("per_class: no class has two images on both sides")
    return class_numbers(classes, names)


class ClassAccuracy:
    """Scores samples by a nearest-class-mean classifier that is fitted once on the reference's train split."""

    def __init__(
        self,
        reference: str | Path | FeatureStatistics | None,
        real: FeatureStatistics | None,
        extractor: FeatureExtractor,
        **options: Any,
    ) -> None:
        """`options` are those of `reference_statistics`: resolution, cache, batch_size, progress, processes."""
        is_file = isinstance(reference, FeatureStatistics) or reference is None or is_statistics_file(reference)
        if real is None or real.labels is None or is_file or real.description.get("split") in (None, "train"):
            raise ConfigError(
                "class_accuracy needs a data set with classes and a train split, and another split as its reference"
            )
        assert not isinstance(reference, FeatureStatistics)
        assert reference is not None
        classes = len(real.class_names or ())
        count = max(TRAIN_IMAGES, TRAIN_IMAGES_PER_CLASS * classes)
        self.real = real
        self.train = reference_statistics(
            reference, extractor, split="train", keep_features=True, max_count=count, **options
        )

    def __call__(self, found: FeatureStatistics) -> dict[str, float]:
        """The samples' accuracy, and beside it that of the real images of the reference."""
        train = self.train
        if found.labels is None:
            raise ConfigError("class_accuracy needs samples with classes: a conditional generator or class folders")
        assert train.labels is not None
        assert self.real.labels is not None
        labels = match_classes(found, train)
        return {
            "class_accuracy": nearest_class_mean(_features(train), train.labels, _features(found), labels),
            "class_accuracy_real": nearest_class_mean(
                _features(train), train.labels, _features(self.real), self.real.labels
            ),
        }


def match_classes(found: FeatureStatistics, reference: FeatureStatistics) -> Tensor:
    """The samples' labels as indices of the reference's classes, by name where both sides have names."""
    assert found.labels is not None
    if not found.class_names or not reference.class_names:
        return found.labels
    missing = set(found.class_names) - set(reference.class_names)
    if missing:
        known = ", ".join(reference.class_names[:20])
        raise ConfigError(f"the reference has no class {min(missing)!r}; it has {known}")
    return torch.tensor([reference.class_names.index(name) for name in found.class_names])[found.labels]


def over_repeats(each: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of the numbers of several seeds, their spread as `<name>_seeds_std`; what is no number is the first's."""
    if len(each) == 1:
        return each[0]
    merged: dict[str, Any] = dict(each[0])
    for name, value in each[0].items():
        if isinstance(value, float):
            values = torch.tensor([numbers[name] for numbers in each], dtype=torch.float64)
            merged[name] = float(values.mean())
            if not name.endswith(("_std", "_residual", "_real")):
                merged[f"{name}_seeds_std"] = float(values.std(correction=1))
    return merged
