"""Open samples: runs, checkpoints, folders, arrays and generators in memory."""

import copy
import tarfile
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from hamgan.errors import ConfigError
from hamgan.evaluation.inputs.generated import GeneratedImages, SampleGenerator
from hamgan.evaluation.inputs.images import ArrayImages, FolderImages, Images
from hamgan.evaluation.inputs.places import check_place_of_samples
from hamgan.evaluation.protocol import Protocol
from hamgan.files import recognise_file
from hamgan.sampling import LoadedGenerator, load_generator

Samples = str | Path | Images | SampleGenerator
"""Anything that can be measured: a path, a fixed set of images, or a generator in memory."""


def load_samples(samples: Samples, protocol: Protocol, device: torch.device) -> Images | SampleGenerator:
    """Load a generator or a fixed set of images, with the weights and batch-norm statistics of the protocol.

    Raises ConfigError if there are none, or if a generator in memory has other weights or statistics.
    """
    if isinstance(samples, (str, Path)):
        samples = _open_path(Path(samples), protocol, device)
    if isinstance(samples, Images):
        return samples
    if isinstance(samples, LoadedGenerator) and not _matches(samples, protocol):
        weights = "the average's" if samples.is_average else "the trained network's"
        raise ConfigError(
            f"the generator in memory has {weights} weights and {samples.batch_norm} batch-norm statistics, which is "
            f"not ema: {str(protocol.ema).lower()} with batch_norm: {protocol.batch_norm}; give its run instead"
        )
    if isinstance(samples, LoadedGenerator):
        samples = copy.copy(samples)
        samples.tf32 = protocol.tf32
    if protocol.batch_norm is None:
        return samples
    if not isinstance(samples, LoadedGenerator):
        raise ConfigError(f"batch_norm: {protocol.batch_norm} needs one of our generators, whose batch norms are known")
    make_standing = protocol.batch_norm == "standing" and samples.batch_norm != "standing"
    return samples.with_standing_statistics(seed=protocol.seed) if make_standing else samples


def _open_path(path: Path, protocol: Protocol, device: torch.device) -> Images | LoadedGenerator:
    check_place_of_samples(path)
    if is_generator(path):
        stored = None if protocol.batch_norm == "standing" else protocol.batch_norm
        return load_generator(path, device, average=protocol.ema, batch_norm=stored)
    if path.suffix == ".npz" and path.is_file():
        return ArrayImages(path)
    if known := recognise_file(path):
        raise ConfigError(f"{path} is {known}")
    if path.is_dir() or (path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))):
        return FolderImages(path)
    raise ConfigError(f"{path} is neither a run, a generator.safetensors, a folder or archive of images nor an .npz")


def _matches(generator: LoadedGenerator, protocol: Protocol) -> bool:
    """Return whether weights and statistics are the protocol's; runs without an average of G always match ``ema``."""
    weights_fit = protocol.ema or not generator.is_average
    return weights_fit and protocol.batch_norm in (None, "standing", generator.batch_norm)


def is_generator(path: Path) -> bool:
    """Return whether a path is a run folder, a checkpoint folder or a file of a generator."""
    inside = ("generator.safetensors", "state.safetensors", "checkpoints", "config.yaml")
    return path.suffix == ".safetensors" or any((path / name).exists() for name in inside)


def make_images(
    samples: Images | SampleGenerator, protocol: Protocol, repeat: int = 0, class_counts: Tensor | None = None
) -> Images:
    """Return the images of `load_samples`: a generator's for one seed, or the fixed set itself.

    ``class_counts`` of the reference are needed for ``labels: training``.
    """
    if isinstance(samples, Images):
        return samples
    return GeneratedImages(
        samples,
        protocol.num_samples,
        seed=protocol.seed + repeat,
        truncation=protocol.truncation,
        labels=protocol.labels,
        class_counts=class_counts,
    )
