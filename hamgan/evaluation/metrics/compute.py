"""Compute the metrics of a protocol from the statistics of samples and reference."""

from dataclasses import replace

import torch

from hamgan.distributed.group import Processes
from hamgan.errors import ConfigError
from hamgan.evaluation.metrics.class_accuracy import class_accuracy, match_classes
from hamgan.evaluation.metrics.cmmd import cmmd
from hamgan.evaluation.metrics.fid import frechet_distance
from hamgan.evaluation.metrics.fid_infinity import FEWEST, fid_at_infinity
from hamgan.evaluation.metrics.kid import kernel_distance
from hamgan.evaluation.metrics.mind import monge_distance
from hamgan.evaluation.metrics.per_class import class_numbers, compare_classes
from hamgan.evaluation.metrics.prdc import compare_neighbours
from hamgan.evaluation.protocol import Protocol
from hamgan.evaluation.statistics import FeatureStatistics
from hamgan.files import JsonObject


def compute_numbers(
    found: FeatureStatistics,
    real: FeatureStatistics | None,
    train: FeatureStatistics | None,
    protocol: Protocol,
    device: torch.device | None = None,
) -> JsonObject:
    """Return the numbers of the protocol's metrics, without the extractor's name.

    ``real`` is the reference (None for metrics that need none), ``train`` the training images for class_accuracy. Only
    the main process does linear algebra, which cannot be divided, so the numbers of the others may lack FID and
    FID_inf. An NVIDIA ``device`` computes distances, kernels and the matrix part of FID.
    """
    numbers: JsonObject = {}
    wanted = protocol.metrics
    if "is" in wanted and found.inception_score:
        numbers["inception_score"], numbers["inception_score_std"] = found.inception_score
    if real is None:
        return numbers
    if "fid_inf" in wanted and len(found.kept_features) < FEWEST:
        raise ConfigError(f"fid_inf needs {FEWEST} samples at least: it draws a line through parts of them")
    on_gpu = device is not None and device.type == "cuda"  # Apple's GPUs have no float64
    found, real = (_move(side, device if on_gpu else torch.device("cpu")) for side in (found, real))
    if Processes.current().is_main:
        if "fid" in wanted:
            # The same images in another order or batch have equal moments except for rounding.
            same = found.description.get("hash") is not None and _images_of(found) == _images_of(real)
            side = real if same else found
            numbers["fid"] = frechet_distance(real.mean, real.covariance, side.mean, side.covariance)
        if "fid_inf" in wanted:
            extrapolated = fid_at_infinity(found.kept_features, real.mean, real.covariance)
            numbers["fid_inf"], numbers["fid_inf_residual"] = extrapolated
    if "per_class" in wanted:
        numbers |= _per_class(found, real)
    if "kid" in wanted:
        size = min(protocol.kid_subset_size, len(found.kept_features), len(real.kept_features))
        features = found.kept_features, real.kept_features
        kid = kernel_distance(*features, protocol.kid_subsets, size, protocol.kid_kernel)
        numbers["kid"], numbers["kid_std"] = kid
    if "cmmd" in wanted:
        numbers["cmmd"] = cmmd(found.kept_features, real.kept_features)
    if "mind" in wanted:
        numbers["mind"] = monge_distance(found.kept_features, real.kept_features)
    numbers |= _by_neighbours(found, real, protocol)
    return numbers | (class_accuracy(found, real, train) if train else {})


def _move(side: FeatureStatistics, device: torch.device | None) -> FeatureStatistics:
    """Return statistics whose features and moments are on a device; labels stay."""
    features = None if side.features is None else side.features.to(device)
    return replace(side, features=features, mean=side.mean.to(device), covariance=side.covariance.to(device))


def _images_of(statistics: FeatureStatistics) -> tuple[object, ...]:
    return statistics.description.get("hash"), statistics.description.get("extractor"), statistics.count


def _by_neighbours(found: FeatureStatistics, real: FeatureStatistics, protocol: Protocol) -> dict[str, float]:
    wanted = {
        "precision and recall": protocol.neighbours if "prc" in protocol.metrics else None,
        "density and coverage": protocol.coverage_neighbours if "density_coverage" in protocol.metrics else None,
    }
    if not any(wanted.values()):
        return {}
    fewest = min(len(found.kept_features), len(real.kept_features))
    for names, neighbours in wanted.items():
        if neighbours and fewest <= neighbours:
            raise ConfigError(f"{names} need more than neighbours = {neighbours} images a side")
    prc, density_coverage = wanted.values()
    return compare_neighbours(found.kept_features, real.kept_features, prc, density_coverage)


def _per_class(found: FeatureStatistics, real: FeatureStatistics) -> JsonObject:
    labels = match_classes(found, real)
    assert real.labels is not None
    names = real.class_names or [str(index) for index in range(int(real.labels.max()) + 1)]
    classes = compare_classes(found.kept_features, labels, real.kept_features, real.labels, len(names))
    if not bool(classes.known.any()):
        raise ConfigError("per_class: no class has two images on both sides")
    return class_numbers(classes, names)


def average_repeats(each: list[JsonObject]) -> JsonObject:
    """Average the numbers of several seeds, with their spread as ``<name>_seeds_std``; other values are the first's."""
    if len(each) == 1:
        return each[0]
    merged = dict(each[0])
    for name, value in each[0].items():
        if isinstance(value, float) and all(isinstance(numbers[name], float) for numbers in each):
            values = torch.tensor([numbers[name] for numbers in each], dtype=torch.float64)
            if name.endswith("_standard_error"):  # of the mean
                merged[name] = float(values.square().mean().sqrt() / len(each) ** 0.5)
                continue
            merged[name] = float(values.mean())
            if not name.endswith(("_std", "_residual", "_real")):
                merged[f"{name}_seeds_std"] = float(values.std(correction=1))
    return merged
