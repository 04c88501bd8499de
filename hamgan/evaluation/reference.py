"""What samples are measured against: computed once, kept in one file, checked before it is used."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hamgan.data import open_source
from hamgan.data.finding.folders import split_folders
from hamgan.distributed.group import Processes
from hamgan.errors import ConfigError, DataError, one_line
from hamgan.evaluation.features.extractor import FeatureExtractor
from hamgan.evaluation.inputs.images import FolderImages, Images, SourceImages
from hamgan.evaluation.metrics.fid import SHUFFLE_SEED
from hamgan.evaluation.statistics import FeatureStatistics, measure

FORMAT = "hamgan-reference-1"
COMPARED = ("extractor", "extractor_weights", "resizer", "precision", "resolution")
NAMED_SOURCES = ("photos", "cifar10", "cifar100")
STATISTICS_FILES = (".safetensors", ".npz")


def save_reference(statistics: FeatureStatistics, file: str | Path) -> Path:
    """Write statistics as safetensors: mean, covariance, features and labels where known, the rest in the header."""
    file = Path(file)
    tensors = {"mean": statistics.mean, "covariance": statistics.covariance}
    tensors |= {
        name: value
        for name, value in (("features", statistics.features), ("labels", statistics.labels))
        if value is not None
    }
    header = {
        "format": FORMAT,
        "count": json.dumps(statistics.count),
        "description": json.dumps(statistics.description),
        "class_names": json.dumps(statistics.class_names),
        "inception_score": json.dumps(statistics.inception_score),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, header)
    partial.replace(file)
    return file


def is_statistics_file(reference: str | Path) -> bool:
    """Whether a reference names a file of statistics rather than images."""
    return Path(reference).suffix in STATISTICS_FILES and Path(reference).is_file()


def load_reference(file: str | Path) -> FeatureStatistics:
    """Read a file of `save_reference`, or an `.npz` with `mu` and `sigma` (ADM, pytorch-fid, clean-fid).

    Raises ConfigError naming the file and what it lacks.
    """
    file = Path(file)
    if not file.is_file():
        raise ConfigError(f"there is no reference file at {file}")
    statistics = _load_npz(file) if file.suffix == ".npz" else _load_safetensors(file)
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
            f"{file} is not a reference file; make one by scripts/evaluate.py reference --data ... --output"
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


def _load_npz(file: Path) -> FeatureStatistics:
    try:
        with np.load(file) as content:
            missing = {"mu", "sigma"} - set(content.files)
            if missing:
                raise ConfigError(f"{file} has no {' and '.join(sorted(missing))}; it has {', '.join(content.files)}")
            mean, covariance = (torch.from_numpy(content[name]).double() for name in ("mu", "sigma"))
    except ConfigError:
        raise
    except Exception as error:  # NumPy and zipfile raise nearly anything for damaged bytes
        raise ConfigError(f"{file} cannot be read as an .npz file: {one_line(error)}") from error
    digest = hashlib.sha256(mean.numpy().tobytes() + covariance.numpy().tobytes()).hexdigest()[:16]
    # Such files say neither how many images nor which extractor: only the length of the mean can be checked.
    return FeatureStatistics(
        None, mean, covariance, {"kind": "npz", "source": str(file), "hash": digest, "preparation": "not stated"}
    )


def check_comparable(samples: dict[str, Any], reference: FeatureStatistics, dimension: int) -> None:
    """Raise ConfigError that says which of extractor, weights, resizer, precision and resolution differ."""
    if len(reference.mean) != dimension:
        raise ConfigError(
            f"the reference has features of length {len(reference.mean)}, {samples['extractor']} gives {dimension}: "
            f"it was made by another extractor"
        )
    differences = [
        f"{key.replace('_', ' ')} {reference.description[key]} (reference) and {samples[key]} (samples)"
        for key in COMPARED
        if key in samples and key in reference.description and reference.description[key] != samples[key]
    ]
    if differences:
        raise ConfigError(f"reference and samples cannot be compared: {'; '.join(differences)}")


def open_reference_images(reference: str | Path, split: str, resolution: int) -> Images:
    """The images of a reference: any source of `hamgan.data`, by name or path, or a folder of equally large images.

    Raises ConfigError when there is nothing at that path.
    """
    name, path = str(reference), Path(reference)
    if not path.is_dir():
        try:
            return SourceImages(open_source(name, split, resolution), name, split)
        except DataError as error:
            known = ", ".join(NAMED_SOURCES)
            raise ConfigError(
                f"there is no reference at {name}: give a prepared store, a folder, an archive, a file of statistics "
                f"or one of {known} ({error})"
            ) from error
    if (path / "manifest.json").is_file():
        return SourceImages(open_source(name, split, resolution), name, split)
    folders = split_folders(path)
    if folders == {"train": path}:  # no splits: the folder as a whole is the reference
        images, kept = FolderImages(path), "train"
    elif split in folders:
        images, kept = FolderImages(folders[split], split), split
    else:
        raise ConfigError(f"{path} has no split {split!r}; it has {', '.join(folders)}")
    if images.size[1:] == (resolution, resolution):
        return images
    if images.class_names is None:
        size = f"{images.size[2]}x{images.size[1]}"
        raise ConfigError(f"{path} has images of {size} pixels, the samples have {resolution}x{resolution}")
    return SourceImages(open_source(name, kept, resolution), name, images.split)


def reference_statistics(
    reference: str | Path | FeatureStatistics,
    extractor: FeatureExtractor,
    *,
    split: str,
    resolution: int,
    keep_features: bool = False,
    cache: str | Path | None = None,
    max_count: int | None = None,
    **options: Any,
) -> FeatureStatistics:
    """The statistics of a reference, from its file, from the cache, or computed (and then kept in the cache).

    `cache` is a folder; `max_count` takes that many images at even distances. Further options are `measure`'s.
    """
    if isinstance(reference, FeatureStatistics):
        return reference
    if is_statistics_file(reference):
        statistics = load_reference(reference)
        if keep_features and statistics.features is None:
            raise ConfigError(
                f"{reference} holds no features, which KID, precision and recall need; make it with --keep-features"
            )
        return statistics
    images = open_reference_images(reference, split, resolution)
    if max_count is not None and max_count < len(images):
        images = Subset(images, max_count)
    file = _cache_file(Path(cache), images, extractor, resolution) if cache and images.kind == "dataset" else None
    # One process that does not see the file yet must not be left alone with the others' sums.
    if file and not Processes.current().any(not file.is_file()):
        statistics = load_reference(file)
        if statistics.features is not None or not keep_features:
            return statistics
    statistics = measure(images, extractor, keep_features=keep_features, title="reference", **options)
    if file and Processes.current().is_main:
        save_reference(statistics, file)
    return statistics


def _cache_file(folder: Path, images: Images, extractor: FeatureExtractor, resolution: int) -> Path:
    identity = {**images.describe(), **extractor.describe(), "count": len(images), "resolution": resolution}
    text = json.dumps(identity, sort_keys=True, default=str)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"


class Subset:
    """`count` images of a larger set, drawn at random once and for all: sets are often sorted by class."""

    def __init__(self, images: Images, count: int) -> None:
        self.images, self.kind, self.class_names = images, images.kind, images.class_names
        order = np.random.RandomState(SHUFFLE_SEED).permutation(len(images))
        self.indices = torch.from_numpy(np.sort(order[:count]))
        self.labels: Tensor | None = images.labels[self.indices] if images.labels is not None else None

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: Any) -> Tensor:
        """uint8 [B, 3, H, W]."""
        return self.images.read(self.indices[torch.as_tensor(indices)].tolist())

    def describe(self) -> dict[str, Any]:
        """The larger set, and how much of it this is."""
        return {**self.images.describe(), "subset": f"{len(self):,} of {len(self.images):,} at random"}


def class_histogram(reference: Any, split: str) -> Tensor | None:
    """How many images of each class a reference has, int64 [classes]; None where it has no labels."""
    labels, names = None, None
    if isinstance(reference, FeatureStatistics):
        labels, names = reference.labels, reference.class_names
    elif reference is not None and is_statistics_file(reference):
        statistics = load_reference(reference)
        labels, names = statistics.labels, statistics.class_names
    elif reference is not None:
        images = open_reference_images(reference, split, 32)
        labels, names = images.labels, images.class_names
    return None if labels is None else torch.bincount(labels, minlength=len(names or ()))
