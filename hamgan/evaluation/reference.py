"""Measure references, store their statistics in files, and check that samples are comparable with them."""

import contextlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hamgan.checkpoint.tensors import write_file
from hamgan.distributed.group import Processes
from hamgan.errors import CheckpointError, ConfigError, one_line
from hamgan.evaluation.cache import drop_oldest, name_file
from hamgan.evaluation.features.extractor import ARCHITECTURES
from hamgan.evaluation.features.resizing import RESIZING
from hamgan.evaluation.inputs.images import IMAGE_ARRAYS, ArrayImages, Images, Subset
from hamgan.evaluation.inputs.references import open_reference_images
from hamgan.evaluation.published_statistics import load_published
from hamgan.evaluation.statistics import FeatureStatistics, Resources, feature_bytes
from hamgan.files import STATISTICS_PICKLE, JsonObject, recognise_file

log = logging.getLogger(__name__)

Reference = str | Path | FeatureStatistics
"""Anything that samples can be measured against: a path, the name of a data set, or statistics in memory."""
FORMAT = "hamgan-reference-1"
COMPARED = ("extractor", "extractor_weights", "resizer", "precision", "resolution")
STATISTICS_FILES = (".safetensors", ".npz", ".pkl")
STATISTICS = {"mu", "sigma"}
IMAGE_NAMES = {images for images, _ in IMAGE_ARRAYS}


def save_reference(statistics: FeatureStatistics, file: str | Path) -> Path:
    """Write statistics as safetensors: mean, covariance, features and labels if known, the rest in the header."""
    file = Path(file)
    tensors = {"mean": statistics.mean, "covariance": statistics.covariance}
    for name, value in (("features", statistics.features), ("labels", statistics.labels)):
        if value is not None:
            tensors[name] = value
    header = {
        "format": FORMAT,
        "count": json.dumps(statistics.count),
        "description": json.dumps(statistics.description),
        "class_names": json.dumps(statistics.class_names),
        "inception_score": json.dumps(statistics.inception_score),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, tensors, header)
    return file


def is_statistics_file(reference: str | Path) -> bool:
    """Return whether a reference names a file of statistics rather than images."""
    path = Path(reference).expanduser()
    if path.suffix not in STATISTICS_FILES or not path.is_file():
        return False
    names = _npz_names(path)
    return names >= STATISTICS or not names & IMAGE_NAMES


def _npz_names(file: Path) -> set[str]:
    """Return the names of the arrays in an ``.npz``; empty for other and damaged files, reported later."""
    try:
        with np.load(file) as content:
            return set(content.files)
    except Exception:  # NumPy and zipfile raise nearly anything for damaged bytes
        return set()


def load_reference(file: str | Path, extractor: str | None = None) -> FeatureStatistics:
    """Read a file of `save_reference`, or a published one, see `load_published`.

    ``extractor`` selects the statistics in a file with those of several. Raises ConfigError naming the file and what it
    lacks.
    """
    file = Path(file).expanduser()
    if not file.is_file():
        raise ConfigError(f"there is no reference file at {file}")
    try:
        own = file.suffix == ".safetensors"
        statistics = _load_safetensors(file) if own else load_published(file, extractor)
    except ConfigError:
        known = recognise_file(file)
        if known and known != STATISTICS_PICKLE:
            raise ConfigError(f"{file} is {known}") from None
        raise
    if statistics.mean.ndim != 1 or statistics.covariance.shape != (len(statistics.mean), len(statistics.mean)):
        raise ConfigError(
            f"{file}: mean {list(statistics.mean.shape)} and covariance {list(statistics.covariance.shape)} do not fit"
        )
    for name, tensor in (("mean", statistics.mean), ("covariance", statistics.covariance)):
        if not bool(torch.isfinite(tensor).all()):
            raise ConfigError(f"{file}: the {name} has NaN or infinite values")
    return statistics


def _load_safetensors(file: Path) -> FeatureStatistics:
    try:
        with safe_open(file, "pt") as content:
            header = content.metadata() or {}
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no iterator)
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"{file} cannot be read as a reference: {error}") from error
    if header.get("format") != FORMAT:
        raise ConfigError(
            f"{file} is not a reference file; make one by `hamgan evaluate reference --data ... --output ...`"
        )
    try:
        score = json.loads(header["inception_score"])
        return FeatureStatistics(
            count=json.loads(header["count"]),
            mean=tensors["mean"],
            covariance=tensors["covariance"],
            description=json.loads(header["description"]) | {"file": str(file)},
            features=tensors.get("features"),
            labels=tensors.get("labels"),
            class_names=json.loads(header["class_names"]),
            inception_score=tuple(score) if score else None,
        )
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{file} is damaged: {one_line(error)}") from error


def check_comparable(samples: JsonObject, reference: FeatureStatistics, dimension: int) -> None:
    """Raise ConfigError that says which of extractor, weights, resizer, precision and resolution differ."""
    if len(reference.mean) != dimension:
        raise ConfigError(
            f"the reference has features of length {len(reference.mean)}, {samples['extractor']} gives {dimension}: "
            f"it was made by another extractor"
        )
    differences = [
        f"{key.replace('_', ' ')} {reference.description[key]} (reference) and {samples[key]} (samples)"
        for key in COMPARED
        if key in samples
        and key in reference.description
        and not _equal_or_abbreviated(reference.description[key], samples[key])
    ]
    if differences:
        origin = reference.description.get("origin")
        whose = f" ({origin})" if origin else ""
        listed = "; ".join(differences) + _hint(reference, samples)
        raise ConfigError(f"reference{whose} and samples cannot be compared: {listed}")


def _equal_or_abbreviated(reference: object, samples: object) -> bool:
    """Return whether values are equal, or one is the first digits of the other hash."""
    short, long = sorted((str(reference), str(samples)), key=len)
    return short == long or (re.fullmatch("[0-9a-f]{8,}", short) is not None and long.startswith(short))


def _hint(reference: FeatureStatistics, samples: JsonObject) -> str:
    """Return a hint at the options that measure the samples like the reference, if there are any."""
    words, label = str(reference.description.get("resizer")), samples["extractor"]
    name = next(name for name, architecture in ARCHITECTURES.items() if architecture.label == label)
    for resizer in ARCHITECTURES[name].resizers:
        if words != samples["resizer"] and words == RESIZING[resizer][1].format(ARCHITECTURES[name].size):
            return f"; --features {name} --resizer {resizer} resizes as the reference was"
    return ""


def reference_statistics(
    reference: Reference,
    resources: Resources,
    *,
    split: str,
    resolution: int,
    keep_features: bool = False,
    max_count: int | None = None,
) -> FeatureStatistics:
    """Return the statistics of a reference, from its file or the cache, else computed and cached.

    ``max_count`` limits it to a fixed random draw of that many images.
    """
    if isinstance(reference, FeatureStatistics):
        return reference
    if is_statistics_file(reference):
        file = Path(reference).expanduser()
        statistics = load_reference(file, resources.extractor.name)
        if statistics.features is not None or not keep_features:
            return statistics
        if not _npz_names(file) & IMAGE_NAMES:
            raise ConfigError(
                f"{reference} holds no features, which KID, precision and recall need; make it with --keep-features"
            )
        return _with_features_of_images(statistics, file, resources)
    images = open_reference_images(reference, split, resolution)
    if max_count is not None and max_count < len(images):
        images = Subset(images, max_count)
    return statistics_of_images(images, resources, keep_features)


def statistics_of_images(images: Images, resources: Resources, keep_features: bool = False) -> FeatureStatistics:
    """Return the statistics of real images from the cache, or compute and cache them."""
    if keep_features:
        whose = f"{len(images):,} images of the reference"
        resources.check_memory(feature_bytes(len(images), resources.extractor.dimension), whose)
    file = name_file(resources.cache, images, resources.extractor) if resources.cache else None
    if file and (kept := _read_kept(file, keep_features)):
        return kept
    statistics = resources.measure(images, "reference", keep_features=keep_features)
    if file and Processes.current().is_main:
        _keep(statistics, file)
    return statistics


def _with_features_of_images(statistics: FeatureStatistics, file: Path, resources: Resources) -> FeatureStatistics:
    """Add features of the images in ADM's files, for metrics that need features; FID uses the statistics of all."""
    found = resources.measure(ArrayImages(file), "reference", keep_features=True)
    subset = f"{found.count:,} images of the file for all but FID"
    return replace(
        statistics,
        features=found.features,
        labels=found.labels,
        description=statistics.description | {"subset": subset},
    )


def _read_kept(file: Path, keep_features: bool) -> FeatureStatistics | None:
    """Return cached statistics; None if they are missing, lack features, or are damaged."""
    kept = None
    with contextlib.suppress(ConfigError, OSError):
        kept = load_reference(file)
        file.touch()  # marks it as recently read
    missing = kept is None or (keep_features and kept.features is None)
    # A process that does not see the file yet must not compute alone.
    return None if Processes.current().any(missing) else kept


def _keep(statistics: FeatureStatistics, file: Path) -> None:
    """Write to the cache; if that fails, the evaluation goes on without it."""
    try:
        save_reference(statistics, file)
        drop_oldest(file.parent)
    except (OSError, CheckpointError) as error:
        log.warning("the features of the reference are not cached: %s", error)


def reference_histogram(
    reference: Reference | None, split: str, resolution: int, class_names: Sequence[str] | None
) -> Tensor | None:
    """Count the images of each class in a reference, int64 [classes]; None if it has no labels.

    The counts are in the order of the samples' ``class_names`` if the reference has the same names. ``resolution`` is
    that of the samples, for prepared stores.
    """
    if reference is None:
        return None
    found: FeatureStatistics | Images
    if isinstance(reference, FeatureStatistics):
        found = reference
    else:
        is_file = is_statistics_file(reference)
        found = load_reference(reference) if is_file else open_reference_images(reference, split, resolution)
    if found.labels is None:
        return None
    counts = torch.bincount(found.labels, minlength=len(names := found.class_names or []))
    if class_names and len(set(names)) == len(names) and sorted(names) == sorted(class_names):
        counts = counts[[names.index(name) for name in class_names]]
    return counts
