"""Evaluate samples against a reference: one row with the numbers and the protocol behind them."""

import time
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from hamgan.distributed.group import from_main, world_size
from hamgan.errors import ConfigError
from hamgan.evaluation.cache import cache_folder
from hamgan.evaluation.checks import (
    check_classes,
    check_memory,
    splits_of_score,
    warnings_about,
    warnings_about_selection,
)
from hamgan.evaluation.contamination import choice_of, flattering, lonely, uses_in_training
from hamgan.evaluation.features.extractor import FeatureExtractor, load_extractor
from hamgan.evaluation.inputs.images import Images
from hamgan.evaluation.inputs.samples import Samples, load_samples, make_images
from hamgan.evaluation.metrics.compute import average_repeats, compute_numbers
from hamgan.evaluation.metrics.standard_error import RESAMPLED, half_differences, standard_errors
from hamgan.evaluation.protocol import NEED_FEATURES, NEED_REFERENCE_FEATURES, Protocol, make_protocol, protocol_line
from hamgan.evaluation.reference import (
    Reference,
    check_comparable,
    class_histogram,
    reference_statistics,
)
from hamgan.evaluation.report import Row, numbers_of
from hamgan.evaluation.statistics import FeatureStatistics, Resources
from hamgan.machine import hamgan_version

TRAIN_IMAGES, TRAIN_IMAGES_PER_CLASS = 1_000, 20
"""Real training images that fit the nearest-class-mean classifier: the larger of both."""


def evaluate(
    samples: Samples,
    reference: Reference | None,
    metrics: Sequence[str] = ("fid", "is"),
    features: str = "inception",
    *,
    preset: str | Path | None = None,
    batch_size: int = 64,
    inception_weights: str | Path | None = None,
    device: str | torch.device | None = None,
    compiled: bool = False,
    strict: bool = False,
    progress: bool = True,
    cache: str | Path | bool = True,
    memory_gib: float = 8.0,
    extractor: FeatureExtractor | None = None,
    **options: Any,
) -> Row:
    """Measure samples against a reference; every process of torch.distributed takes its share and returns the same row.

    Args:
        samples: a run folder, a checkpoint folder, ``generator.safetensors``, a folder of images, an ``.npz`` (arr_0
            uint8 [N, H, W, 3]), or a LoadedGenerator-like callable.
        reference: a prepared store, ``photos``, a folder of images, a reference file or an ``.npz`` with mu and sigma;
            None where no metric needs one.
        metrics: see `METRICS`; keys carry the extractor's name unless it is the Inception that everybody quotes.
        preset: ``hamgan-paper``, ``biggan`` or a YAML file of `Protocol` fields; explicit options win.
        inception_weights: else $HAMGAN_INCEPTION_WEIGHTS, else downloaded once; likewise for other extractors by
            $HAMGAN_DINOV2_WEIGHTS, $HAMGAN_CLIP_B32_WEIGHTS and $HAMGAN_CLIP_L336_WEIGHTS.
        compiled: torch.compile the extractor (pays off beyond some thousand images).
        strict: warnings, such as too few samples for the covariance, are errors.
        cache: keep the features of references in `cache_folder()`, or in a folder of your own; False keeps none.
        memory_gib: what gathered features may take on every process (KID, precision and recall, ...).
        extractor: one that `load_extractor` made earlier, to be used again.
        options: fields of `Protocol`: num_samples, seed, repeats, truncation, batch_norm, labels, split, is_splits, ...

    Returns: a flat dict: the numbers, then the protocol. Raises ConfigError with one sentence for anything unusable.
    """
    protocol = make_protocol(preset, metrics=list(metrics), features=features, **options)
    kept = None if cache is False else cache_folder() if cache is True else Path(cache)
    parts = []
    for part in protocol.by_extractor():
        given = extractor if extractor and extractor.name == part.features else None
        found = given or load_protocol_extractor(part, inception_weights, device, compiled)
        parts.append((part, Resources(found, batch_size, progress, kept, memory_gib)))
    return evaluate_parts(samples, reference, parts, preset=preset, strict=strict)


def evaluate_parts(
    samples: Samples,
    reference: Reference | None,
    parts: Sequence[tuple[Protocol, Resources]],
    *,
    preset: str | Path | None = None,
    strict: bool = False,
) -> Row:
    """Evaluate by one extractor after the other and join the rows: the first one's, with the numbers of the others.

    ``protocols`` of the row holds, by number, the lines of those that another extractor was used for.
    """
    row: Row = {}
    families: set[str] = set()
    for protocol, resources in parts:
        found = evaluate_protocol(samples, reference, protocol, resources, preset=preset, strict=strict)
        families.add(resources.extractor.architecture.family.name)
        if not row:
            row = found | {"protocols": {}}
            continue
        row["protocols"] |= {number.key: found["protocol"] for number in numbers_of(found)}
        row |= {key: value for key, value in found.items() if key not in row}
        for told in ("warnings", "notes"):
            row[told] = [*row[told], *(text for text in found[told] if text not in row[told])]
        row["seconds"] = round(row["seconds"] + found["seconds"], 2)
    row["notes"] += lonely(families, parts[0][0])
    return row


def load_protocol_extractor(
    protocol: Protocol, inception_weights: str | Path | None, device: str | torch.device | None, compiled: bool
) -> FeatureExtractor:
    """Load the extractor that a protocol names."""
    is_inception = protocol.features.startswith("inception")
    return load_extractor(
        protocol.features,
        weights=inception_weights if is_inception else None,
        weights_sha256=protocol.inception_sha256 if is_inception else None,
        resizer=protocol.resizer,
        device=device,
        compiled=compiled,
        tf32=protocol.tf32,
    )


def evaluate_protocol(
    samples: Samples,
    reference: Reference | None,
    protocol: Protocol,
    resources: Resources,
    *,
    preset: str | Path | None = None,
    strict: bool = False,
) -> Row:
    """Do what `evaluate` says with a protocol and an extractor that are ready; ``preset`` is the protocol's name."""
    evaluation = Evaluation(samples, reference, protocol, resources, preset=preset, strict=strict)
    each = []
    for repeat in range(protocol.repeats):
        found = evaluation.measure(repeat)
        errors = standard_errors(evaluation.half_differences(found))
        each.append(evaluation.compute(found) | {f"{name}_standard_error": value for name, value in errors.items()})
    return evaluation.make_row(found, each)


class Evaluation:
    """Hold samples, and a reference that is measured, for numbers of one extractor.

    Raises ConfigError for sides and choices that do not fit. ``warnings`` has what makes numbers incomparable.
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
        self.loaded = loaded = load_samples(samples, protocol, resources.extractor.device, resources.batch_size)
        if protocol.repeats > 1 and isinstance(loaded, Images):
            source = loaded.describe()["source"]
            raise ConfigError(f"repeats is {protocol.repeats}, but {source} is a fixed set of images, not a generator")
        names = getattr(loaded, "class_names", None)
        self.counts = class_histogram(reference, protocol.split, names) if protocol.labels == "training" else None
        images = make_images(loaded, protocol, class_counts=self.counts)
        check_memory(len(images), protocol, resources)
        self.real = _measure_reference(reference, images, protocol, resources)
        self.warnings = warnings_about(len(images), self.real, resources.extractor, protocol, preset)
        selected = images.describe().get("selected")
        self.warnings += warnings_about_selection(selected, resources.extractor, protocol)
        if strict and self.warnings:
            raise ConfigError("; ".join(self.warnings))
        self.train = _measure_training_images(reference, self.real, images, protocol, resources)

    def measure(self, repeat: int = 0) -> FeatureStatistics:
        """Extract the features of the samples, a generator's of one of its seeds."""
        images, metrics = make_images(self.loaded, self.protocol, repeat, self.counts), set(self.protocol.metrics)
        return self.resources.measure(
            images,
            "samples",
            is_splits=splits_of_score(self.protocol, len(images)),
            keep_features=bool(NEED_FEATURES & metrics or (self.protocol.resamples and set(RESAMPLED) & metrics)),
        )

    def compute(self, found: FeatureStatistics) -> dict[str, Any]:
        """Return the numbers of the protocol, without the extractor's name; all processes must call this."""
        # Machines may differ in the last digits of a decomposition.
        return from_main(compute_numbers(found, self.real, self.train, self.protocol, self.resources.extractor.device))

    def half_differences(self, found: FeatureStatistics, stream: int = 0) -> list[dict[str, float]]:
        """Return what `standard_errors` needs, as often as the protocol resamples; see `halves`."""
        metrics = [name for name in self.protocol.metrics if name in RESAMPLED]
        if not (metrics and self.protocol.resamples):
            return []
        protocol, device = replace(self.protocol, metrics=metrics), self.resources.extractor.device

        def compute(half: FeatureStatistics) -> dict[str, float]:
            numbers = from_main(compute_numbers(half, self.real, None, protocol, device))
            return {name: value for name, value in numbers.items() if not name.endswith("_std")}

        return half_differences(found, self.protocol.resamples, compute, device, stream)

    def make_row(self, found: FeatureStatistics, each: list[dict[str, Any]]) -> Row:
        """Return the row of the numbers of all seeds, with the protocol."""
        extractor, numbers = self.resources.extractor, average_repeats(each)
        if undefined := [name for name, value in numbers.items() if isinstance(value, float) and not isfinite(value)]:
            raise ConfigError(f"{', '.join(undefined)} came out as no finite number; the images or weights are damaged")
        row = {extractor.key(name): value for name, value in numbers.items()}
        row |= _describe(found, self.real, self.protocol, extractor)
        family, uses = extractor.architecture.family, uses_in_training(self.loaded)
        row |= {"extractor_saw": family.saw, "training_saw": uses, "chosen": choice_of(self.loaded)}
        row |= {"preset": str(self.preset) if self.preset else None, "warnings": self.warnings}
        row |= {"notes": flattering(family, uses), "seconds": round(time.perf_counter() - self.start, 2)}
        return from_main(row | {"protocol": protocol_line(row)})


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
    """Measure the training images that fit the classifier of class_accuracy; None where that is not asked for."""
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
) -> Row:
    described = found.description
    row: Row = {
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
        told = ("split", "hash", "preparation", "subset", "left_out", "origin")
        row |= {f"reference_{key}": real.description.get(key) for key in told}
    row |= {key: described[key] for key in ("extractor", "extractor_weights", "resizer", "precision")}
    device = extractor.device
    row["settings"] = _describe_settings(protocol)
    return row | {
        "is_splits": splits_of_score(protocol, found.count or 0),
        "processes": world_size(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "images_per_second": round(found.images_per_second or 0.0, 2),
        "hamgan": hamgan_version(),
        "torch": torch.__version__,
    }


def _describe_settings(protocol: Protocol) -> list[str]:
    """Word the choices of single metrics."""
    size = f"{protocol.kid_subsets} subsets of {protocol.kid_subset_size:,} at most"
    settings = {
        "kid": f"KID by the {protocol.kid_kernel} kernel over {size}",
        "prc": f"precision and recall by {protocol.neighbours} neighbours in these features",
        "density_coverage": f"density and coverage by {protocol.coverage_neighbours} neighbours in these features",
    }
    return [words for name, words in settings.items() if name in protocol.metrics]
