"""What may be measured: runs, checkpoints, folders, arrays and generators in memory, told apart by what they are."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hamgan.checkpoint import generator_from_state, latest_checkpoint, read_tensors
from hamgan.config import ConfigError, load_config
from hamgan.evaluation.images import ArrayImages, FolderImages, GeneratedImages, Images
from hamgan.evaluation.protocol import Protocol
from hamgan.sampling import LoadedGenerator, fold_spectral_norm, load_generator


def load_samples(samples: Any, protocol: Protocol, device: torch.device, batch_size: int = 64) -> Any:
    """A generator (callable) or a fixed set of Images, from anything `evaluate` takes.

    Raises ConfigError that says what was looked for.
    """
    if isinstance(samples, (str, Path)):
        path = Path(samples)
        if is_generator(path):
            samples = load_generator(path, device=device) if protocol.ema else _load_raw_generator(path, device)
        elif path.is_dir():
            return FolderImages(path)
        elif path.suffix == ".npz" and path.is_file():
            return ArrayImages(path)
        elif path.exists():
            raise ConfigError(f"{path} is neither a run, a generator.safetensors, a folder of images nor an .npz")
        else:
            raise ConfigError(f"there is nothing at {path}: give a run, a checkpoint, a folder of images or an .npz")
    if protocol.batch_norm == "standing" and callable(samples):
        return with_standing_statistics(samples, batch_size, protocol.seed)
    return samples


def is_generator(path: Path) -> bool:
    """Whether a path is a run folder, a checkpoint folder or a file of a generator."""
    inside = ("generator.safetensors", "state.safetensors", "checkpoints", "config.yaml")
    return path.suffix == ".safetensors" or any((path / name).exists() for name in inside)


def _load_raw_generator(path: Path, device: torch.device) -> LoadedGenerator:
    """The generator that is trained, not its average: only whole checkpoints have it."""
    checkpoint: Path | None = path
    if not (path / "state.safetensors").is_file():
        checkpoint = latest_checkpoint(path / "checkpoints") if (path / "checkpoints").is_dir() else None
    if checkpoint is None:
        raise ConfigError(f"ema: false needs a run or a checkpoint folder; {path} has the averaged generator alone")
    run = checkpoint.parent.parent
    config = load_config(run / "config.yaml")
    tensors, _ = read_tensors(checkpoint / "state.safetensors", "generator.")
    network = generator_from_state(config, tensors, checkpoint).to(device)
    names = run / "classes.json"
    return LoadedGenerator(
        fold_spectral_norm(network),
        config,
        class_names=json.loads(names.read_text()) if names.is_file() else None,
        kimg=float(checkpoint.name),
        source=str(checkpoint),
    )


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
        ema=protocol.ema,
    )


def with_standing_statistics(generator: Any, batch_size: int, seed: int) -> LoadedGenerator:
    """A copy whose batch-norm statistics are the averages over 16 fresh batches (Brock et al. 2019, appendix B)."""
    if not isinstance(generator, LoadedGenerator):
        raise ConfigError("batch_norm: standing needs one of our generators, whose batch norms are known")
    return generator.with_standing_statistics(batch_size, seed)
