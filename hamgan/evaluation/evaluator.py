"""Evaluate samples against a reference: one row with the numbers and the protocol behind them."""

import time
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hamgan.distributed.group import from_main, world_size
from hamgan.errors import ConfigError
from hamgan.evaluation.cache import cache_folder
from hamgan.evaluation.features.extractor import FeatureExtractor, load_extractor
from hamgan.evaluation.inputs.images import Images
from hamgan.evaluation.inputs.references import open_reference_images
from hamgan.evaluation.inputs.samples import Samples, load_samples, make_images
from hamgan.evaluation.metrics.compute import average_repeats, compute_numbers
from hamgan.evaluation.protocol import NEED_FEATURES, NEED_REFERENCE_FEATURES, Protocol, make_protocol, protocol_line
from hamgan.evaluation.reference import (
    Reference,
    check_comparable,
    class_histogram,
    is_statistics_file,
    load_reference,
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
    for protocol, resources in parts:
        found = evaluate_protocol(samples, reference, protocol, resources, preset=preset, strict=strict)
        if not row:
            row = found | {"protocols": {}}
            continue
        row["protocols"] |= {number.key: found["protocol"] for number in numbers_of(found)}
        row |= {key: value for key, value in found.items() if key not in row}
        row["warnings"] = [*row["warnings"], *(text for text in found["warnings"] if text not in row["warnings"])]
        row["seconds"] = round(row["seconds"] + found["seconds"], 2)
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
    start, extractor = time.perf_counter(), resources.extractor
    loaded = load_samples(samples, protocol, extractor.device, resources.batch_size)
    if protocol.repeats > 1 and isinstance(loaded, Images):
        raise ConfigError(f"repeats is {protocol.repeats}, but {samples} is a fixed set of images, not a generator")
    names = getattr(loaded, "class_names", None)
    counts = class_histogram(reference, protocol.split, names) if protocol.labels == "training" else None
    images = make_images(loaded, protocol, class_counts=counts)
    _check_memory(images, protocol, resources)
    real = _measure_reference(reference, images, protocol, resources)
    other_split = _other_split(real, protocol)
    if preset and other_split:  # a preset is a published protocol: against another split its name would be a lie
        raise ConfigError(f"preset {preset}: {other_split}")
    warnings = _too_few_images(len(images), real, extractor, protocol) + ([other_split] if other_split else [])
    warnings += _few_a_split(len(images), extractor, protocol)
    warnings += _selection(images.describe().get("selected"), extractor, protocol)
    if strict and warnings:
        raise ConfigError("; ".join(warnings))
    train = _measure_training_images(reference, real, images, protocol, resources)
    each = []
    for repeat in range(protocol.repeats):
        images = make_images(loaded, protocol, repeat, counts)
        found = resources.measure(
            images,
            "samples",
            is_splits=_is_splits(protocol, len(images)),
            keep_features=bool(NEED_FEATURES & set(protocol.metrics)),
        )
        # Machines may differ in the last digits of a decomposition.
        each.append(from_main(compute_numbers(found, real, train, protocol)))
    numbers = average_repeats(each)
    if undefined := [name for name, value in numbers.items() if isinstance(value, float) and not isfinite(value)]:
        raise ConfigError(f"{', '.join(undefined)} came out as no finite number; the images or weights are damaged")
    row = {extractor.key(name): value for name, value in numbers.items()}
    row |= _describe(found, real, protocol, extractor)
    row |= {"preset": str(preset) if preset else None, "warnings": warnings}
    row |= {"seconds": round(time.perf_counter() - start, 2), "protocol": protocol_line(row)}
    return from_main(row)


def _is_splits(protocol: Protocol, count: int) -> int | None:
    return min(protocol.is_splits, count) if "is" in protocol.metrics else None


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
    _check_classes(reference, real.labels, real.description.get("split"))
    count = max(TRAIN_IMAGES, TRAIN_IMAGES_PER_CLASS * len(real.class_names or ()))
    return reference_statistics(
        reference, resources, split="train", resolution=_resolution(images), keep_features=True, max_count=count
    )


def _check_classes(reference: Reference, labels: Tensor | None, split: str | None) -> None:
    is_data_set = isinstance(reference, (str, Path)) and not is_statistics_file(reference)
    if labels is None or split in (None, "train") or not is_data_set:
        raise ConfigError(
            f"class_accuracy needs a data set with classes and two splits, train and the reference; {reference} is "
            "none: add a val split, or leave class_accuracy out of the metrics"
        )


def check_reference(reference: str | Path, metrics: Sequence[str], resolution: int, split: str = "val") -> None:
    """Raise ConfigError for a reference against which an evaluation could not compute its metrics, before any work."""
    if is_statistics_file(reference):
        labels, found = None, load_reference(reference).description.get("split")
    elif set(metrics) <= {"is"}:
        return
    else:
        images = open_reference_images(reference, split, resolution)
        labels, found = images.labels, images.describe().get("split")
        if len(images) < 2:
            raise ConfigError(f"{reference} has one image for the reference; a covariance needs two at least")
    if "class_accuracy" in metrics:
        _check_classes(reference, labels, found)


def _check_memory(images: Images, protocol: Protocol, resources: Resources) -> None:
    needing = NEED_FEATURES & set(protocol.metrics)
    needed = 2 * len(images) * resources.extractor.dimension * 4 / 2**30
    if needing and needed > resources.memory_gib:
        raise ConfigError(
            f"{', '.join(sorted(needing))} keep all features: about {needed:.1f} GiB a process for {len(images):,} "
            f"samples a side, allowed are {resources.memory_gib:g} (--memory-gib); FID and IS need none of it"
        )


def _too_few_images(
    count: int, real: FeatureStatistics | None, extractor: FeatureExtractor, protocol: Protocol
) -> list[str]:
    """Word the warnings about sides with fewer images than a covariance has dimensions."""
    if real is None or not {"fid", "fid_inf"} & set(protocol.metrics):
        return []
    return [
        f"{side}: {number:,} images for the covariance of {extractor.dimension} features; the FID is far "
        f"above that of {10 * extractor.dimension:,} and must only be compared at the same counts"
        for side, number in (("samples", count), ("reference", real.count))
        if number is not None and number <= extractor.dimension
    ]


def _few_a_split(count: int, extractor: FeatureExtractor, protocol: Protocol) -> list[str]:
    """Warn of an Inception Score whose splits are smaller than the classifier has classes."""
    splits = _is_splits(protocol, count)
    if splits is None or count // splits >= extractor.classes:
        return []
    each = count // splits
    return [f"Inception Score: no split of {each:,} samples scores above {each:,}; compare at the same counts"]


def _selection(selected: str | None, extractor: FeatureExtractor, protocol: Protocol) -> list[str]:
    """Warn of numbers that flatter a generator of selected images: they miss what was left out, or chose it."""
    if not selected:
        return []
    own = [f"the training images were selected by {extractor.name}, which measures them"]
    both = {"prc", "density_coverage"} & set(protocol.metrics)
    recall = ["trained on a selection, which costs diversity: add prc or density_coverage to the metrics"]
    return (own if f"by {extractor.name}:" in selected else []) + ([] if both else recall)


def _other_split(real: FeatureStatistics | None, protocol: Protocol) -> str:
    """Say that a reference file holds another split than the protocol's; an empty string where it does not."""
    measured = real.description.get("split") if real else None
    if measured in (None, protocol.split):
        return ""
    return (
        f"the reference file holds the {measured} split, the protocol says {protocol.split}; give --split "
        f"{measured} or another file"
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
        told = ("split", "hash", "preparation", "subset", "left_out")
        row |= {f"reference_{key}": real.description.get(key) for key in told}
    row |= {key: described[key] for key in ("extractor", "extractor_weights", "resizer", "precision")}
    device = extractor.device
    return row | {
        "is_splits": _is_splits(protocol, found.count or 0),
        "processes": world_size(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "images_per_second": round(found.images_per_second or 0.0, 2),
        "hamgan": hamgan_version(),
        "torch": torch.__version__,
    }
