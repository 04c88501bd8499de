"""Check, before samples are measured, whether their numbers can be computed and compared."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from hamgan.errors import ConfigError
from hamgan.evaluation.features.extractor import FeatureExtractor
from hamgan.evaluation.inputs.references import open_reference_images
from hamgan.evaluation.protocol import Protocol
from hamgan.evaluation.reference import Reference, is_statistics_file, load_reference
from hamgan.evaluation.statistics import FeatureStatistics


def warnings_about(
    count: int,
    real: FeatureStatistics | None,
    extractor: FeatureExtractor,
    protocol: Protocol,
    preset: str | Path | None = None,
) -> list[str]:
    """Return warnings about numbers of ``count`` samples; ConfigError if they break the protocol of the preset."""
    other_split = _other_split(real, protocol)
    if preset and other_split:  # a preset is a published protocol
        raise ConfigError(f"preset {preset}: {other_split}")
    warnings = _too_few_images(count, real, extractor, protocol) + ([other_split] if other_split else [])
    return warnings + _whole_reference(real, protocol) + _warn_of_small_splits(count, extractor, protocol)


def splits_of_score(protocol: Protocol, count: int, extractor: FeatureExtractor) -> int | None:
    """Return the number of parts over which the Inception Score of ``count`` samples is averaged.

    None if the score is not asked for or the extractor is no classifier.
    """
    return min(protocol.is_splits, count) if "is" in protocol.metrics and extractor.classes else None


def _too_few_images(
    count: int, real: FeatureStatistics | None, extractor: FeatureExtractor, protocol: Protocol
) -> list[str]:
    """Warn of samples or references with fewer images than a covariance has dimensions."""
    if real is None or not {"fid", "fid_inf"} & set(protocol.metrics):
        return []
    return [
        f"{side}: {number:,} images for the covariance of {extractor.dimension} features; the FID is far "
        f"above that of {10 * extractor.dimension:,} and must only be compared at the same counts"
        for side, number in (("samples", count), ("reference", real.count))
        if number is not None and number <= extractor.dimension
    ]


def _whole_reference(real: FeatureStatistics | None, protocol: Protocol) -> list[str]:
    """Warn of a file of statistics over more images than ``reference_samples``."""
    wanted = protocol.reference_samples
    if real is None or wanted is None or (real.count is not None and real.count <= wanted):
        return []
    images = f"{real.count:,} images" if real.count else "an unknown number of images"
    return [f"reference_samples is {wanted:,}, but the reference holds statistics of {images}, which are taken whole"]


def _warn_of_small_splits(count: int, extractor: FeatureExtractor, protocol: Protocol) -> list[str]:
    """Warn of an Inception Score with fewer images per split than classes, or without a classifier."""
    if "is" in protocol.metrics and not extractor.classes:
        return [f"Inception Score: {extractor.architecture.label} is no classifier, so there is none"]
    splits = splits_of_score(protocol, count, extractor)
    if splits is None or count // splits >= extractor.classes:
        return []
    each = count // splits
    return [f"Inception Score: no split of {each:,} samples scores above {each:,}; compare at the same counts"]


def _other_split(real: FeatureStatistics | None, protocol: Protocol) -> str:
    """Return a warning if a reference file has another split than the protocol, else an empty string."""
    measured = real.description.get("split") if real else None
    if measured in (None, protocol.split):
        return ""
    return (
        f"the reference file holds the {measured} split, the protocol says {protocol.split}; give --split "
        f"{measured} or another file"
    )


def check_reference(reference: str | Path, metrics: Sequence[str], resolution: int) -> None:
    """Raise ConfigError if the metrics cannot be computed against a reference, before anything is measured."""
    if is_statistics_file(reference):
        labels, found = None, load_reference(reference).description.get("split")
    elif set(metrics) <= {"is"}:
        return
    else:
        images = open_reference_images(reference, "val", resolution)
        labels, found = images.labels, images.describe().get("split")
        if len(images) < 2:
            raise ConfigError(f"{reference} has one image for the reference; a covariance needs two at least")
    if "class_accuracy" in metrics:
        check_classes(reference, labels, found)


def check_classes(reference: Reference, labels: Tensor | None, split: str | None) -> None:
    """Raise ConfigError if a reference lacks the classes or the two splits that class_accuracy needs."""
    is_data_set = isinstance(reference, (str, Path)) and not is_statistics_file(reference)
    if labels is None or split in (None, "train") or not is_data_set:
        raise ConfigError(
            f"class_accuracy needs a data set with classes and two splits, train and the reference; {reference} is "
            "none: add a val split, or leave class_accuracy out of the metrics"
        )
