"""Measure one set of samples against one reference with one extractor."""

import time
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from hamgan.distributed.group import from_main, world_size
from hamgan.errors import ConfigError
from hamgan.evaluation.checks import check_classes, splits_of_score, warnings_about
from hamgan.evaluation.contamination import choice_of, notes_on_same_family, uses_in_training
from hamgan.evaluation.features.extractor import FeatureExtractor
from hamgan.evaluation.inputs.generated import SampleGenerator
from hamgan.evaluation.inputs.images import Images
from hamgan.evaluation.inputs.samples import Samples, load_samples, make_images
from hamgan.evaluation.metrics.class_accuracy import match_classes
from hamgan.evaluation.metrics.compute import average_repeats, compute_numbers
from hamgan.evaluation.metrics.standard_error import RESAMPLED, half_differences, standard_errors
from hamgan.evaluation.protocol import NEED_FEATURES, NEED_REFERENCE_FEATURES, Protocol, protocol_line
from hamgan.evaluation.reference import Reference, check_comparable, reference_histogram, reference_statistics
from hamgan.evaluation.statistics import FeatureStatistics, Resources, Wanted, feature_bytes, measure_together
from hamgan.files import JsonObject
from hamgan.machine import hamgan_version

TRAIN_IMAGES, TRAIN_IMAGES_PER_CLASS = 1_000, 20
"""Number of training images for the nearest-class-mean classifier: the larger of both."""
BY_CLASS = {"class_accuracy", "per_class"}
"""Metrics that compare classes."""


class Evaluation:
    """Hold the samples and the measured reference for the metrics of one extractor.

    Raises ConfigError for samples, a reference or choices that do not fit together. ``warnings`` lists what makes the
    numbers hard to compare.
    """

    def __init__(
        self,
        samples: Samples,
        reference: Reference | None,
        protocol: Protocol,
        resources: Resources,
        *,
        preset: str | Path | None = None,
        strict: bool = False,
    ) -> None:
        self.start = time.perf_counter()
        self.protocol, self.resources, self.preset = protocol, resources, preset
        self.loaded = loaded = load_samples(samples, protocol, resources.extractor.device)
        if protocol.repeats > 1 and isinstance(loaded, Images):
            source = loaded.describe()["source"]
            raise ConfigError(f"repeats is {protocol.repeats}, but {source} is a fixed set of images, not a generator")
        self.counts = _count_classes(reference, loaded, protocol)
        images = make_images(loaded, protocol, class_counts=self.counts)
        self.count = len(images)
        resources.check_memory(self.bytes_of_samples, f"{self.count:,} samples for {', '.join(self.keeping)}")
        self.real = _measure_reference(reference, images, protocol, resources)
        if self.real is not None and BY_CLASS & set(protocol.metrics):
            match_classes(images, self.real)  # before hours of sampling
        self.warnings = warnings_about(self.count, self.real, resources.extractor, protocol, preset)
        if strict and self.warnings:
            raise ConfigError("; ".join(self.warnings))
        self.train = _measure_training_images(reference, self.real, images, protocol, resources)

    @property
    def keeping(self) -> list[str]:
        """Return the metrics for which all features of the samples are kept."""
        keeping = NEED_FEATURES | (set(RESAMPLED) if self.protocol.resamples else set())
        return [name for name in self.protocol.metrics if name in keeping]

    @property
    def bytes_of_samples(self) -> int:
        """Return the bytes of the kept features of the samples."""
        return feature_bytes(self.count, self.resources.extractor.dimension) if self.keeping else 0

    @property
    def bytes_of_reference(self) -> int:
        """Return the bytes of the kept features of real images."""
        kept = [one.features for one in (self.real, self.train) if one is not None and one.features is not None]
        return sum(features.nbytes for features in kept)

    @property
    def wanted(self) -> Wanted:
        """Return what a pass over the samples must collect."""
        splits = splits_of_score(self.protocol, self.count, self.resources.extractor)
        return Wanted(self.resources.extractor, splits, keep_features=bool(self.keeping))

    def numbers(self, found: FeatureStatistics) -> JsonObject:
        """Return the numbers of `compute`, with the standard errors that the protocol asks for."""
        errors = standard_errors(self.half_differences(found))
        return self.compute(found) | {f"{name}_standard_error": value for name, value in errors.items()}

    def compute(self, found: FeatureStatistics) -> JsonObject:
        """Return the numbers of the protocol, without the extractor's name; all processes must call this."""
        # The main process's, since machines may differ in the last digits of a decomposition.
        return from_main(compute_numbers(found, self.real, self.train, self.protocol, self.resources.extractor.device))

    def half_differences(self, found: FeatureStatistics, stream: int = 0) -> list[dict[str, float]]:
        """Return the differences between random halves for `standard_errors`, one per resampling; see `halves`."""
        metrics = [name for name in self.protocol.metrics if name in RESAMPLED]
        if not (metrics and self.protocol.resamples):
            return []
        protocol, device = replace(self.protocol, metrics=metrics), self.resources.extractor.device

        def compute(half: FeatureStatistics) -> dict[str, float]:
            numbers = from_main(compute_numbers(half, self.real, None, protocol, device))
            return {name: value for name, value in numbers.items() if not name.endswith("_std")}

        return half_differences(found, self.protocol.resamples, compute, device, stream)

    def make_row(self, found: FeatureStatistics, each: list[JsonObject]) -> JsonObject:
        """Return the row of the numbers of all seeds, with the protocol."""
        extractor, numbers = self.resources.extractor, average_repeats(each)
        if undefined := [name for name, value in numbers.items() if isinstance(value, float) and not isfinite(value)]:
            raise ConfigError(f"{', '.join(undefined)} is not finite; the images or weights are damaged")
        row = {extractor.key(name): value for name, value in numbers.items()}
        row |= _describe(found, self.real, self.protocol, extractor)
        family, uses = extractor.architecture.family, uses_in_training(self.loaded)
        row |= {"extractor_saw": family.saw, "training_saw": uses, "chosen": choice_of(self.loaded)}
        row |= {"preset": str(self.preset) if self.preset else None, "warnings": self.warnings}
        row |= {"notes": notes_on_same_family(family, uses), "seconds": round(time.perf_counter() - self.start, 2)}
        return from_main(row | {"protocol": protocol_line(row)})


def check_memory(evaluations: Sequence[Evaluation]) -> None:
    """Raise ConfigError if the features that are kept at the same time would exceed the memory limit."""
    needed = sum(one.bytes_of_samples + one.bytes_of_reference for one in evaluations)
    keeping = dict.fromkeys(name for one in evaluations for name in one.keeping)
    evaluations[0].resources.check_memory(needed, f"samples and reference for {', '.join(keeping)}")


def measure_samples(evaluations: Sequence[Evaluation], repeat: int = 0) -> list[FeatureStatistics]:
    """Extract features of the same samples for all evaluations, by several extractors in one pass.

    ``repeat`` selects the seed of a generator's samples. Returns statistics in the order of ``evaluations``.
    """
    first = evaluations[0]
    images = make_images(first.loaded, first.protocol, repeat, first.counts)
    batch_size, progress = first.resources.batch_size, first.resources.progress
    wanted = [one.wanted for one in evaluations]
    return measure_together(images, wanted, batch_size=batch_size, progress=progress, title="samples")


def _count_classes(reference: Reference | None, samples: Images | SampleGenerator, protocol: Protocol) -> Tensor | None:
    """Return the number of reference images per class if labels are drawn with these frequencies, else None."""
    if protocol.labels != "training" or isinstance(samples, Images):
        return None
    drawn = make_images(samples, replace(protocol, labels="uniform"))
    return reference_histogram(reference, protocol.split, _resolution(drawn), drawn.class_names)


def _resolution(images: Images) -> int:
    width, height = images.size
    if height != width:
        raise ConfigError(f"the samples are {width}x{height} pixels; references are square")
    return height


def _measure_reference(
    reference: Reference | None, images: Images, protocol: Protocol, resources: Resources
) -> FeatureStatistics | None:
    needing = [name for name in protocol.metrics if name != "is"]
    if not needing:
        return None
    if reference is None:
        raise ConfigError(f"{', '.join(needing)} need a reference: a prepared store, a folder, a file or `photos`")
    resolution, extractor = _resolution(images), resources.extractor
    real = reference_statistics(
        reference,
        resources,
        split=protocol.split,
        resolution=resolution,
        keep_features=bool(NEED_REFERENCE_FEATURES & set(protocol.metrics)),
        max_count=protocol.reference_samples,
    )
    check_comparable({**extractor.describe(), "resolution": resolution}, real, extractor.dimension)
    return real


def _measure_training_images(
    reference: Reference | None,
    real: FeatureStatistics | None,
    images: Images,
    protocol: Protocol,
    resources: Resources,
) -> FeatureStatistics | None:
    """Measure the training images for the classifier of class_accuracy; None if that metric is not asked for."""
    if "class_accuracy" not in protocol.metrics:
        return None
    assert reference is not None
    assert real is not None
    check_classes(reference, real.labels, real.description.get("split"))
    count = max(TRAIN_IMAGES, TRAIN_IMAGES_PER_CLASS * len(real.class_names or ()))
    return reference_statistics(
        reference, resources, split="train", resolution=_resolution(images), keep_features=True, max_count=count
    )


def _describe(
    found: FeatureStatistics, real: FeatureStatistics | None, protocol: Protocol, extractor: FeatureExtractor
) -> JsonObject:
    described = found.description
    row: JsonObject = {
        "samples": described["source"],
        "samples_kind": described["kind"],
        "num_samples": found.count,
        "samples_hash": described["hash"],
        "resolution": described["resolution"],
    }
    of_generator = ("kimg", "ema", "batch_norm", "truncation", "labels", "sample_precision", "selected")
    row |= {key: described.get(key) for key in of_generator}
    row |= {"samples_left_out": described.get("left_out")}
    row |= {"seed": protocol.seed if described["kind"] == "generator" else None, "repeats": protocol.repeats}
    if real:
        row |= {"reference": real.description.get("source"), "reference_count": real.count}
        keys = ("split", "hash", "preparation", "subset", "left_out", "origin")
        row |= {f"reference_{key}": real.description.get(key) for key in keys}
    row |= {key: described[key] for key in ("extractor", "extractor_weights", "resizer")}
    row["feature_precision"] = described["precision"]  # `precision` is a number
    device = extractor.device
    row["settings"] = _describe_settings(protocol)
    return row | {
        "is_splits": splits_of_score(protocol, found.count or 0, extractor),
        "processes": world_size(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "images_per_second": round(found.images_per_second or 0.0, 2),
        "hamgan": hamgan_version(),
        "torch": torch.__version__,
    }


def _describe_settings(protocol: Protocol) -> list[str]:
    """Return one phrase for the protocol per metric that has settings of its own."""
    size = f"{protocol.kid_subsets} subsets of {protocol.kid_subset_size:,} at most"
    settings = {
        "kid": f"KID by the {protocol.kid_kernel} kernel over {size}",
        "prc": f"precision and recall by {protocol.neighbours} neighbours in these features",
        "density_coverage": f"density and coverage by {protocol.coverage_neighbours} neighbours in these features",
    }
    return [words for name, words in settings.items() if name in protocol.metrics]
