"""What may be measured: runs, checkpoints, folders, arrays and generators in memory, told apart by what they are."""

import copy
from pathlib import Path
from typing import Any

import torch

from hamgan.config import ConfigError
from hamgan.evaluation.images import ArrayImages, FolderImages, GeneratedImages, Images
from hamgan.evaluation.protocol import Protocol
from hamgan.evaluation.reference import class_histogram
from hamgan.networks import standing_statistics
from hamgan.sampling import LoadedGenerator, load_generator

STANDING_BATCHES = 16


def open_samples(
    samples: Any, protocol: Protocol, device: torch.device, batch_size: int, reference: Any = None
) -> Images:
    """The images to measure, from anything `evaluate` takes; ConfigError says what was looked for."""
    if callable(samples):
        return _generated(samples, protocol, batch_size, reference)
    path = Path(samples)
    if is_generator(path):
        return _generated(load_generator(path, device=device), protocol, batch_size, reference)
    if path.is_dir():
        return FolderImages(path)
    if path.suffix == ".npz" and path.is_file():
        return ArrayImages(path)
    if path.exists():
        raise ConfigError(f"{path} is neither a run, a generator.safetensors, a folder of images nor an .npz")
    raise ConfigError(f"there is nothing at {path}: give a run, a checkpoint, a folder of images or an .npz")


def is_generator(path: Path) -> bool:
    """Whether a path is a run folder, a checkpoint folder or a file of a generator."""
    inside = ("generator.safetensors", "state.safetensors", "checkpoints", "config.yaml")
    return path.suffix == ".safetensors" or any((path / name).exists() for name in inside)


def _generated(generator: Any, protocol: Protocol, batch_size: int, reference: Any) -> GeneratedImages:
    if protocol.batch_norm == "standing":
        generator = with_standing_statistics(generator, batch_size, protocol)
    return GeneratedImages(
        generator,
        protocol.num_samples,
        seed=protocol.seed,
        truncation=protocol.truncation,
        labels=protocol.labels,
        class_counts=class_histogram(reference, protocol.split) if protocol.labels == "training" else None,
    )


def with_standing_statistics(generator: LoadedGenerator, batch_size: int, protocol: Protocol) -> LoadedGenerator:
    """A copy whose batch-norm statistics are the averages over 16 fresh batches (Brock et al. 2019, appendix B)."""
    if not isinstance(generator, LoadedGenerator):
        raise ConfigError("batch_norm: standing needs one of our generators, whose batch norms are known")
    clone = copy.copy(generator)
    clone.network = copy.deepcopy(generator.network)
    device = next(clone.network.parameters()).device
    random = torch.Generator().manual_seed(protocol.seed)
    batches = []
    for _ in range(STANDING_BATCHES):
        z = torch.randn(batch_size, clone.config.generator.latent_dim, generator=random)
        labels = torch.randint(clone.num_classes, (batch_size,), generator=random)
        batches.append((z.to(device), labels.to(device)))
    standing_statistics(clone.network, batches)
    return clone
