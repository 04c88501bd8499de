"""What may be measured: runs, checkpoints, folders, arrays and generators in memory, told apart by what they are."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hamgan.errors import ConfigError
from hamgan.evaluation.inputs.images import ArrayImages, FolderImages, GeneratedImages, Images
from hamgan.evaluation.protocol import Protocol
from hamgan.sampling import LoadedGenerator, load_generator


def load_samples(samples: Any, protocol: Protocol, device: torch.device, batch_size: int = 64) -> Any:
    """A generator (callable) or a fixed set of Images, from anything `evaluate` takes.

    Raises ConfigError that says what was looked for, and for a generator in memory that is not the protocol's.
    """
    if isinstance(samples, (str, Path)):
        path = Path(samples)
        if is_generator(path):
            stored = None if protocol.batch_norm == "standing" else protocol.batch_norm
            samples = load_generator(path, device, average=protocol.ema, batch_norm=stored)
        elif path.is_dir():
            return FolderImages(path)
        elif path.suffix == ".npz" and path.is_file():
            return ArrayImages(path)
        elif path.exists():
            raise ConfigError(f"{path} is neither a run, a generator.safetensors, a folder of images nor an .npz")
        else:
            raise ConfigError(f"there is nothing at {path}: give a run, a checkpoint, a folder of images or an .npz")
    if not callable(samples):
        return samples
    if isinstance(samples, LoadedGenerator) and not _is_as_asked(samples, protocol):
        weights = "the average's" if samples.is_average else "the trained network's"
        raise ConfigError(
            f"the generator in memory has {weights} weights and {samples.batch_norm} batch-norm statistics, which is "
            f"not ema: {str(protocol.ema).lower()} with batch_norm: {protocol.batch_norm}; give its run instead"
        )
    if protocol.batch_norm is None:
        return samples
    if not isinstance(samples, LoadedGenerator):
        raise ConfigError(f"batch_norm: {protocol.batch_norm} needs one of our generators, whose batch norms are known")
    make_standing = protocol.batch_norm == "standing" and samples.batch_norm != "standing"
    return samples.with_standing_statistics(batch_size, protocol.seed) if make_standing else samples


def _is_as_asked(generator: LoadedGenerator, protocol: Protocol) -> bool:
    """Whether weights and statistics are the protocol's; runs that keep no average of G are measured without it."""
    weights_fit = protocol.ema or not generator.is_average
    return weights_fit and protocol.batch_norm in (None, "standing", generator.batch_norm)


def is_generator(path: Path) -> bool:
    """Whether a path is a run folder, a checkpoint folder or a file of a generator."""
    inside = ("generator.safetensors", "state.safetensors", "checkpoints", "config.yaml")
    return path.suffix == ".safetensors" or any((path / name).exists() for name in inside)


def images_of(samples: Any, protocol: Protocol, seed: int, class_counts: Tensor | None = None) -> Images:
    """The images of `load_samples`' answer: a generator's for one seed, or the fixed set itself."""
    if not callable(samples):
        fixed: Images = samples
        return fixed
    return GeneratedImages(
        samples,
        protocol.num_samples,
        seed=seed,
        truncation=protocol.truncation,
        labels=protocol.labels,
        class_counts=class_counts,
    )
