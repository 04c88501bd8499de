"""Evaluate samples against a reference; returns one row with the numbers and their protocol."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hamgan.evaluation.by_extractor import Evaluation, check_memory, measure_samples
from hamgan.evaluation.cache import cache_folder
from hamgan.evaluation.contamination import notes_on_single_family
from hamgan.evaluation.features.extractor import FeatureExtractor, load_extractor
from hamgan.evaluation.inputs.samples import Samples, load_samples
from hamgan.evaluation.protocol import Protocol, make_protocol
from hamgan.evaluation.reference import Reference
from hamgan.evaluation.report import numbers_of
from hamgan.evaluation.statistics import Resources
from hamgan.files import JsonObject


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
    extractor: FeatureExtractor | Sequence[FeatureExtractor] = (),
    **options: Any,
) -> JsonObject:
    """Measure samples against a reference; processes of torch.distributed share the work and return the same row.

    Args:
        samples: a run folder, a checkpoint folder, ``generator.safetensors``, a folder of images, an ``.npz`` (arr_0
            uint8 [N, H, W, 3]), or a `LoadedGenerator` or a callable with its signature.
        reference: a prepared store, ``photos``, a folder of images, a file of statistics or an ``.npz`` with mu and
            sigma; None if no metric needs one.
        metrics: names in `METRICS`; keys of the row carry the extractor's name, except for the usual Inception.
        features: extractor, see `Protocol.features`.
        preset: ``hamgan-paper``, ``biggan`` or a YAML file of `Protocol` fields; explicit options win.
        inception_weights: weights file; default $HAMGAN_INCEPTION_WEIGHTS, else downloaded once. Other extractors use
            $HAMGAN_DINOV2_WEIGHTS, $HAMGAN_CLIP_B32_WEIGHTS and $HAMGAN_CLIP_L336_WEIGHTS.
        compiled: compile the extractor with torch.compile, which pays beyond some thousand images.
        strict: turn warnings, such as too few samples for the covariance, into errors.
        cache: True caches features of references in `cache_folder()`, a path in that folder, False not at all.
        memory_gib: limit of memory, per process, for kept features (KID, precision and recall, ...).
        extractor: one or several extractors of `load_extractor` to reuse.
        options: fields of `Protocol`: num_samples, seed, repeats, truncation, batch_norm, labels, split, is_splits, ...

    Returns: a flat dict with the numbers, then the protocol. Raises ConfigError for unusable inputs or options.
    """
    protocol = make_protocol(preset, metrics=list(metrics), features=features, **options)
    kept = None if cache is False else cache_folder() if cache is True else Path(cache)
    given = [extractor] if isinstance(extractor, FeatureExtractor) else extractor
    loaded, parts = {one.name: one for one in given}, []
    for part in protocol.by_extractor():
        found = loaded.get(part.features) or load_protocol_extractor(part, inception_weights, device, compiled)
        parts.append((part, Resources(found, batch_size, progress, kept, memory_gib)))
    return evaluate_parts(samples, reference, parts, preset=preset, strict=strict)


def evaluate_parts(
    samples: Samples,
    reference: Reference | None,
    parts: Sequence[tuple[Protocol, Resources]],
    *,
    preset: str | Path | None = None,
    strict: bool = False,
) -> JsonObject:
    """Evaluate with several extractors in one pass over the samples, and join their rows into one.

    All references are measured first, so that a problem with one shows before hours of sampling. The row is the first
    extractor's; ``protocols`` in it maps the other extractors' numbers to their protocols.
    """
    first, resources = parts[0]
    samples = load_samples(samples, first, resources.extractor.device)
    evaluations = [Evaluation(samples, reference, *part, preset=preset, strict=strict) for part in parts]
    check_memory(evaluations)
    each: list[list[JsonObject]] = [[] for _ in parts]
    for repeat in range(first.repeats):
        found = measure_samples(evaluations, repeat)
        for evaluation, statistics, numbers in zip(evaluations, found, each, strict=True):
            numbers.append(evaluation.numbers(statistics))
    rows = [one.make_row(*measured) for one, measured in zip(evaluations, zip(found, each, strict=True), strict=True)]
    return _join(rows, parts)


def _join(rows: Sequence[JsonObject], parts: Sequence[tuple[Protocol, Resources]]) -> JsonObject:
    """Join the rows of several extractors, and add notes about what is missing from all of them."""
    row = rows[0] | ({"protocols": {}} if len(rows) > 1 else {})
    for found in rows[1:]:
        row["protocols"] |= {number.key: found["protocol"] for number in numbers_of(found)}
        row |= {key: value for key, value in found.items() if key not in row}
        for key in ("warnings", "notes"):
            row[key] = [*row[key], *(text for text in found[key] if text not in row[key])]
    families = {resources.extractor.architecture.family.name for _, resources in parts}
    row["notes"] += notes_on_single_family(families, parts[0][0])
    if row["selected"] and not any({"prc", "density_coverage"} & set(protocol.metrics) for protocol, _ in parts):
        row["notes"].append("trained on a selection, which costs diversity: prc or density_coverage would show it")
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
