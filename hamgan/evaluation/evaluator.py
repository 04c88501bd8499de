"""`evaluate`: samples against a reference, one row with the numbers and the protocol behind them."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import hamgan
from hamgan.distributed.group import Processes
from hamgan.errors import ConfigError
from hamgan.evaluation.features.extractor import FeatureExtractor, load_extractor
from hamgan.evaluation.inputs.images import Images
from hamgan.evaluation.inputs.samples import images_of, load_samples
from hamgan.evaluation.metrics.compute import ClassAccuracy, compute_numbers, over_repeats
from hamgan.evaluation.protocol import NEED_FEATURES, NEED_REFERENCE_FEATURES, Protocol, make_protocol, protocol_line
from hamgan.evaluation.reference import check_comparable, class_histogram, reference_statistics
from hamgan.evaluation.rounding import describe_change, fid_change
from hamgan.evaluation.statistics import FeatureStatistics, measure


def evaluate(
    samples: Any,
    reference: str | Path | FeatureStatistics | None,
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
    cache: str | Path | None = None,
    memory_gib: float = 8.0,
    extractor: FeatureExtractor | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Measure samples against a reference; every process of torch.distributed takes its share and returns the same row.

    Args:
        samples: a run folder, a checkpoint folder, `generator.safetensors`, a folder of images, an `.npz` (arr_0 uint8
            [N, H, W, 3]), or a LoadedGenerator-like callable.
        reference: a prepared store, `photos`, a folder of images, a reference file or an `.npz` with mu and sigma; None
            where no metric needs one.
        metrics: see `METRICS`; keys carry the extractor's name unless it is the Inception that everybody quotes.
        preset: `hamgan-paper`, `biggan` or a YAML file of `Protocol` fields; explicit options win.
        inception_weights: else $HAMGAN_INCEPTION_WEIGHTS, else downloaded once.
        compiled: torch.compile the extractor (pays off beyond some thousand images).
        strict: warnings, such as too few samples for the covariance, are errors.
        cache: a folder for the features of named references.
        memory_gib: what gathered features may take on every process (KID, precision and recall, ...).
        extractor: one that `load_extractor` made earlier, to be used again.
        options: fields of `Protocol`: num_samples, seed, repeats, truncation, batch_norm, labels, split, is_splits, ...

    Returns: a flat dict: the numbers, then the protocol. Raises ConfigError with one sentence for anything unusable.
    """
    protocol = make_protocol(preset, metrics=list(metrics), features=features, **options)
    start, processes = time.perf_counter(), Processes.current()
    extractor = extractor or load_extractor(
        protocol.features,
        weights=inception_weights,
        weights_sha256=protocol.inception_sha256,
        resizer=protocol.resizer,
        precision=protocol.precision,
        device=device,
        compiled=compiled,
    )
    loaded = load_samples(samples, protocol, extractor.device, batch_size)
    if protocol.repeats > 1 and not callable(loaded):
        raise ConfigError(f"repeats is {protocol.repeats}, but {samples} is a fixed set of images, not a generator")
    counts = class_histogram(reference, protocol.split) if protocol.labels == "training" else None
    images = images_of(loaded, protocol, protocol.seed, counts)
    _check_memory(images, extractor, protocol, memory_gib)
    shared: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "processes": processes}
    real = _open_reference(reference, images, extractor, protocol, cache, shared)
    _check_split(real, protocol, preset)
    warnings = _warnings(len(images), real, extractor, protocol)
    if strict and warnings:
        raise ConfigError("; ".join(warnings))
    accuracy = None
    if "class_accuracy" in protocol.metrics:
        resolution = _resolution(images)
        accuracy = ClassAccuracy(reference, real, extractor, resolution=resolution, cache=cache, **shared)
    each = []
    for repeat in range(protocol.repeats):
        images = images_of(loaded, protocol, protocol.seed + repeat, counts)
        found = _measure_samples(images, extractor, protocol, shared)
        numbers = compute_numbers(found, real, protocol, processes) | (accuracy(found) if accuracy else {})
        each.append(_same_on_every_process(numbers, processes))
    row: dict[str, Any] = {f"{name}{extractor.suffix}": value for name, value in over_repeats(each).items()}
    row |= _protocol_row(found, real, protocol, processes, extractor)
    if protocol.precision != "fp32" and "fid" in protocol.metrics:
        change = fid_change(images, reference, extractor, protocol, cache, shared)
        row |= change
        warnings += describe_change(change, protocol.precision)
    row |= {"preset": str(preset) if preset else None, "warnings": warnings}
    row |= {"seconds": round(time.perf_counter() - start, 2), "protocol": protocol_line(row)}
    return _same_on_every_process(row, processes)


def _measure_samples(
    images: Images, extractor: FeatureExtractor, protocol: Protocol, shared: dict[str, Any]
) -> FeatureStatistics:
    return measure(
        images,
        extractor,
        is_splits=_is_splits(protocol, len(images)),
        keep_features=bool(NEED_FEATURES & set(protocol.metrics)),
        title="samples",
        **shared,
    )


def _is_splits(protocol: Protocol, count: int) -> int | None:
    return min(protocol.is_splits, count) if "is" in protocol.metrics else None


def _resolution(images: Images) -> int:
    height, width = images.read([0]).shape[-2:]
    if height != width:
        raise ConfigError(f"the samples are {width}x{height} pixels; references are square")
    return int(height)


def _open_reference(
    reference: str | Path | FeatureStatistics | None,
    images: Images,
    extractor: FeatureExtractor,
    protocol: Protocol,
    cache: str | Path | None,
    shared: dict[str, Any],
) -> FeatureStatistics | None:
    needing = [name for name in protocol.metrics if name != "is"]
    if not needing:
        return None
    if reference is None:
        raise ConfigError(f"{', '.join(needing)} need a reference: a prepared store, a folder, a file or `photos`")
    resolution = _resolution(images)
    real = reference_statistics(
        reference,
        extractor,
        split=protocol.split,
        resolution=resolution,
        keep_features=bool(NEED_REFERENCE_FEATURES & set(protocol.metrics)),
        cache=cache,
        max_count=protocol.reference_samples,
        **shared,
    )
    check_comparable({**extractor.describe(), "resolution": resolution}, real, extractor.dimension)
    return real


def _check_memory(images: Images, extractor: FeatureExtractor, protocol: Protocol, memory_gib: float) -> None:
    needing = NEED_FEATURES & set(protocol.metrics)
    needed = 2 * len(images) * extractor.dimension * 4 / 2**30
    if needing and needed > memory_gib:
        raise ConfigError(
            f"{', '.join(sorted(needing))} keep all features: about {needed:.1f} GiB a process for {len(images):,} "
            f"samples a side, allowed are {memory_gib:g} (--memory-gib); FID and IS need none of it"
        )


def _warnings(count: int, real: FeatureStatistics | None, extractor: FeatureExtractor, protocol: Protocol) -> list[str]:
    found = []
    if real and {"fid", "fid_inf"} & set(protocol.metrics):
        for what, number in (("samples", count), ("reference", real.count)):
            if number is not None and number <= extractor.dimension:
                found.append(
                    f"{what}: {number:,} images for the covariance of {extractor.dimension} features; the FID is far "
                    f"above that of {10 * extractor.dimension:,} and must only be compared at the same counts"
                )
    if problem := _other_split(real, protocol):
        found.append(problem)
    if protocol.precision != "fp32":
        change = {"bf16": "4.5e-3", "tf32": "1e-3"}[protocol.precision]
        found.append(f"{protocol.precision} features differ from fp32's by about {change} relative; do not quote")
    return found


def _check_split(real: FeatureStatistics | None, protocol: Protocol, preset: str | Path | None) -> None:
    """A preset is a published protocol: against another split its name would be a lie."""
    if preset and (problem := _other_split(real, protocol)):
        raise ConfigError(f"preset {preset}: {problem}")


def _other_split(real: FeatureStatistics | None, protocol: Protocol) -> str:
    measured = real.description.get("split") if real else None
    if measured in (None, protocol.split):
        return ""
    return (
        f"the reference file holds the {measured} split, the protocol says {protocol.split}; give --split "
        f"{measured} or another file"
    )


def _protocol_row(
    found: FeatureStatistics,
    real: FeatureStatistics | None,
    protocol: Protocol,
    processes: Processes,
    extractor: FeatureExtractor,
) -> dict[str, Any]:
    described = found.description
    row: dict[str, Any] = {
        "samples": described["source"],
        "samples_kind": described["kind"],
        "num_samples": found.count,
        "samples_hash": described["hash"],
        "resolution": described["resolution"],
    }
    for key in ("kimg", "ema", "batch_norm", "truncation", "labels"):
        row[key] = described.get(key)
    generated = described["kind"] == "generator"
    row["seed"] = protocol.seed if generated else None
    row["repeats"] = protocol.repeats
    if real:
        row |= {"reference": real.description.get("source"), "reference_count": real.count}
        for key in ("split", "hash", "preparation", "subset"):
            row[f"reference_{key}"] = real.description.get(key)
    row |= {key: described[key] for key in ("extractor", "extractor_weights", "resizer", "precision")}
    row["is_splits"] = _is_splits(protocol, found.count or 0)
    return row | {
        "processes": processes.size,
        "device": _device_name(extractor.device),
        "images_per_second": round(found.images_per_second or 0.0, 2),
        "hamgan": hamgan.__version__,
        "torch": torch.__version__,
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _same_on_every_process(row: dict[str, Any], processes: Processes) -> dict[str, Any]:
    """The main process's row: machines may differ in the last digits of a decomposition."""
    if processes.size == 1:
        return row
    rows = [row]
    dist.broadcast_object_list(rows, src=0)
    return rows[0]
