"""`evaluate`: samples against a reference, one row with the numbers and the protocol behind them."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import hamgan
from hamgan.config import Config, ConfigError
from hamgan.evaluation.distributed import Processes
from hamgan.evaluation.features import FeatureExtractor, load_extractor
from hamgan.evaluation.images import Images
from hamgan.evaluation.metrics import frechet_distance, kernel_distance, nearest_class_mean, precision_recall
from hamgan.evaluation.protocol import NEED_FEATURES, NEED_REFERENCE_FEATURES, Protocol, make_protocol, protocol_line
from hamgan.evaluation.reference import check_comparable, reference_statistics
from hamgan.evaluation.samples import open_samples
from hamgan.evaluation.statistics import FeatureStatistics, measure

TRAIN_IMAGES, TRAIN_IMAGES_PER_CLASS = 1_000, 20
"""Real training images that fit the nearest-class-mean classifier: the larger of both."""


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
        options: fields of `Protocol`: num_samples, seed, truncation, batch_norm, labels, split, is_splits, ...

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
    images = open_samples(samples, protocol, extractor.device, batch_size, reference)
    _check_memory(images, extractor, protocol, memory_gib)
    shared: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "processes": processes}
    real = _open_reference(reference, images, extractor, protocol, cache, shared)
    warnings = _warnings(len(images), real, extractor, protocol)
    if strict and warnings:
        raise ConfigError("; ".join(warnings))
    found = measure(
        images,
        extractor,
        is_splits=min(protocol.is_splits, len(images)) if "is" in protocol.metrics else None,
        keep_features=bool(NEED_FEATURES & set(protocol.metrics)),
        title="samples",
        **shared,
    )
    if real:
        check_comparable(found.description, real, extractor.dimension)
    numbers = _numbers(found, real, protocol, processes)
    if "class_accuracy" in protocol.metrics:
        numbers |= _class_accuracy(found, real, reference, extractor, cache, shared)
    row: dict[str, Any] = {f"{name}{extractor.suffix}": value for name, value in numbers.items()}
    row |= _protocol_row(found, real, protocol, processes, extractor)
    row |= {"warnings": warnings, "seconds": round(time.perf_counter() - start, 2)}
    row["protocol"] = protocol_line(row)
    return _same_on_every_process(row, processes)


def evaluate_training(generator: Any, config: Config) -> dict[str, Any]:
    """Evaluate a generator in memory as `config.eval` says, on all processes; the reference's features stay in the run.

    The reference is `eval.reference`, else the held-out split of the training source. Returns `evaluate`'s row.
    """
    chosen = config.eval
    return evaluate(
        generator,
        chosen.reference or config.data.source,
        chosen.metrics,
        chosen.features,
        num_samples=chosen.num_samples,
        batch_size=chosen.batch_size,
        batch_norm=chosen.batch_norm,
        cache=config.folder / "reference",
    )


def _open_reference(
    reference: str | Path | FeatureStatistics | None,
    images: Images,
    extractor: FeatureExtractor,
    protocol: Protocol,
    cache: str | Path | None,
    shared: dict[str, Any],
) -> FeatureStatistics | None:
    needing = [name for name in protocol.metrics if name != "is"]
    if reference is None:
        if needing:
            raise ConfigError(f"{', '.join(needing)} need a reference: a prepared store, a folder, a file or `photos`")
        return None
    if not needing:
        return None
    return reference_statistics(
        reference,
        extractor,
        split=protocol.split,
        resolution=images.read([0]).shape[-1],
        keep_features=bool(NEED_REFERENCE_FEATURES & set(protocol.metrics)),
        cache=cache,
        max_count=protocol.reference_samples,
        **shared,
    )


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
    if protocol.precision != "fp32":
        found.append(f"features in {protocol.precision}: they differ from fp32's by up to 4.5e-3; do not quote")
    return found


def _numbers(
    found: FeatureStatistics, real: FeatureStatistics | None, protocol: Protocol, processes: Processes
) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for metric in protocol.metrics:
        if metric == "fid" and real:
            # One process computes: linear algebra has nothing to share out, the others would only heat the cores.
            if processes.is_main:
                numbers["fid"] = frechet_distance(real.mean, real.covariance, found.mean, found.covariance)
        elif metric == "is" and found.inception_score:
            numbers["inception_score"], numbers["inception_score_std"] = found.inception_score
        elif metric == "kid" and real:
            assert found.features is not None
            assert real.features is not None
            size = min(protocol.kid_subset_size, len(found.features), len(real.features))
            distance = kernel_distance(found.features, real.features, protocol.kid_subsets, size, processes)
            numbers |= {"kid": distance.mean, "kid_std": distance.std}
        elif metric == "prc" and real:
            assert found.features is not None
            assert real.features is not None
            precision, recall = precision_recall(found.features, real.features, protocol.neighbours, processes)
            numbers |= {"precision": precision, "recall": recall}
    return numbers


def _class_accuracy(
    found: FeatureStatistics,
    real: FeatureStatistics | None,
    reference: Any,
    extractor: FeatureExtractor,
    cache: str | Path | None,
    shared: dict[str, Any],
) -> dict[str, float]:
    """The classifier is fitted on the reference's train split; its accuracy on the reference itself stands beside."""
    if found.labels is None or real is None or real.labels is None or isinstance(reference, FeatureStatistics):
        raise ConfigError(
            "class_accuracy needs samples with classes and a reference data set with classes and a train split"
        )
    assert found.features is not None
    assert real.features is not None
    resolution = int(found.description["resolution"])
    train = reference_statistics(
        reference,
        extractor,
        split="train",
        resolution=resolution,
        keep_features=True,
        cache=cache,
        max_count=max(TRAIN_IMAGES, TRAIN_IMAGES_PER_CLASS * len(real.class_names or ())),
        **shared,
    )
    assert train.features is not None
    assert train.labels is not None
    labels = _match_classes(found, train)
    return {
        "class_accuracy": nearest_class_mean(train.features, train.labels, found.features, labels),
        "class_accuracy_real": nearest_class_mean(train.features, train.labels, real.features, real.labels),
    }


def _match_classes(found: FeatureStatistics, train: FeatureStatistics) -> torch.Tensor:
    """The samples' labels as indices of the reference's classes, by name where both sides have names."""
    assert found.labels is not None
    if not found.class_names or not train.class_names:
        return found.labels
    missing = set(found.class_names) - set(train.class_names)
    if missing:
        raise ConfigError(
            f"the reference has no class {sorted(missing)[0]!r}; it has {', '.join(train.class_names[:20])}"
        )
    return torch.tensor([train.class_names.index(name) for name in found.class_names])[found.labels]


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
    for key in ("kimg", "ema", "seed", "truncation", "labels"):
        row[key] = described.get(key)
    row["batch_norm"] = protocol.batch_norm if described["kind"] == "generator" else None
    if real:
        row |= {
            "reference": real.description.get("source"),
            "reference_split": real.description.get("split"),
            "reference_count": real.count,
            "reference_hash": real.description.get("hash"),
            "reference_preparation": real.description.get("preparation"),
            "reference_subset": real.description.get("subset"),
        }
    row |= {key: described[key] for key in ("extractor", "extractor_weights", "resizer", "precision")}
    row["is_splits"] = protocol.is_splits if "is" in protocol.metrics else None
    row |= {
        "processes": processes.size,
        "device": _device_name(extractor.device),
        "images_per_second": round(found.images_per_second or 0.0, 2),
        "hamgan": getattr(hamgan, "__version__", None),
        "torch": torch.__version__,
    }
    return row


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _same_on_every_process(row: dict[str, Any], processes: Processes) -> dict[str, Any]:
    if processes.size == 1:
        return row
    rows = [row]
    dist.broadcast_object_list(rows, src=0)
    return rows[0]
