"""Score samples by a nearest-class-mean classifier of real training images."""

import torch
from torch import Tensor

from hamgan.errors import ConfigError
from hamgan.evaluation.inputs.images import Images
from hamgan.evaluation.metrics.per_class import ClassMoments, nearest_class
from hamgan.evaluation.statistics import FeatureStatistics
from hamgan.files import JsonObject


def nearest_class_mean(train_features: Tensor, train_labels: Tensor, features: Tensor, labels: Tensor) -> float:
    """Return the share of features [N, D] whose nearest class mean of training features [M, D] is their own label's.

    Labels are class indices [M] and [N]; a class without training features is never predicted.
    """
    train = ClassMoments.of(train_features, train_labels, int(train_labels.max()) + 1)
    return float((nearest_class(features, train) == labels.cpu()).double().mean())


def class_accuracy(found: FeatureStatistics, real: FeatureStatistics, train: FeatureStatistics) -> JsonObject:
    """Return the accuracy on the samples and on the labelled real images of the reference."""
    assert train.labels is not None
    assert real.labels is not None
    fitted = train.kept_features, train.labels
    names = train.class_names or []
    counts = torch.bincount(train.labels, minlength=len(names))
    unknown = [name for name, count in zip(names, counts.tolist(), strict=False) if not count]
    left_out = f"{len(unknown)} of {len(names)} classes without training images: {', '.join(unknown[:5])}"
    return {
        "class_accuracy_left_out": left_out if unknown else None,
        "class_accuracy": nearest_class_mean(*fitted, found.kept_features, match_classes(found, train)),
        "class_accuracy_real": nearest_class_mean(*fitted, real.kept_features, real.labels),
    }


def match_classes(found: FeatureStatistics | Images, reference: FeatureStatistics) -> Tensor:
    """Return the samples' labels as indices of the reference's classes, by name if both sides have names.

    Raises ConfigError for a side without classes and for a class that the reference lacks.
    """
    if found.labels is None or reference.labels is None:
        side = "the samples" if found.labels is None else "the reference"
        raise ConfigError(
            f"{side} have no classes, which numbers by class need: take a generator, a data set or class folders"
        )
    names, known = found.class_names, reference.class_names
    if names and known and names != known:  # equal lists may hold a name twice, as ImageNet's words do
        if missing := set(names) - set(known):
            raise ConfigError(f"the reference has no class {min(missing)!r}; it has {', '.join(known[:20])}")
        return torch.tensor([known.index(name) for name in names])[found.labels]
    largest, count = int(found.labels.max()), len(known or ()) or int(reference.labels.max()) + 1
    if largest >= count:
        raise ConfigError(f"the samples have a class of index {largest}, but the reference has {count} classes")
    return found.labels
