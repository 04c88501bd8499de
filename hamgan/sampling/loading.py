"""From a path to a generator: run folders, checkpoint folders, files of a generator, repositories of a hub."""

import re
from pathlib import Path
from typing import Any

import torch

from hamgan.checkpoint import (
    CheckpointError,
    generator_from_state,
    latest_checkpoint,
    load_generator_file,
    read_class_names,
    read_state,
    read_tensors,
)
from hamgan.config import Config, ConfigError, load_config
from hamgan.messages import did_you_mean, one_line
from hamgan.networks import Generator
from hamgan.sampling.generator import LoadedGenerator
from hamgan.sampling.inference import fold_spectral_norm

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def load_generator(
    path: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> LoadedGenerator:
    """Load a run folder, a checkpoint folder, a ``generator.safetensors`` or a hub's ``owner/name`` for sampling.

    Raises CheckpointError naming the path and what is wrong with it, ConfigError for a device that cannot be used.

    Example:
        >>> generator = load_generator(run, device="cpu")
        >>> generator.class_names[:3]
        ['astronaut', 'brick', 'cat']
    """
    place = Path(path)
    if not place.exists() and HUB_ID.fullmatch(str(path)) and not place.parent.is_dir():
        place = _download(str(path))
    if place.is_dir():
        network, config, header = _load_folder(place)
    elif place.is_file():
        network, config, header = load_generator_file(place)
    else:
        raise CheckpointError(f"there is no checkpoint at {path}{_nearest_run(place)}")
    try:
        network = network.to(device=device, dtype=dtype)
    except (RuntimeError, AssertionError) as error:  # an unknown name, or a torch that was built without it
        raise ConfigError(f"device {device} cannot be used: {str(error).splitlines()[0]}") from error
    names, kimg = header.pop("class_names", None), header.pop("kimg", None)
    return LoadedGenerator(
        fold_spectral_norm(network), config, class_names=names, kimg=kimg, source=str(path), header=header
    )


def _download(name: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise CheckpointError(
            f"there is no checkpoint at {name}; to load it from a hub: pip install huggingface_hub"
        ) from error
    try:
        return Path(hf_hub_download(name, "generator.safetensors"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise CheckpointError(f"there is no checkpoint at {name}, and the hub gives none: {one_line(error)}") from error


def _nearest_run(path: Path) -> str:
    siblings = [str(item) for item in path.parent.iterdir() if item.is_dir()] if path.parent.is_dir() else []
    return did_you_mean(str(path), siblings)


def _load_folder(path: Path) -> tuple[Generator, Config, dict[str, Any]]:
    """A run folder (its generator.safetensors, else its newest checkpoint) or one checkpoint folder."""
    if (path / "generator.safetensors").is_file():
        return load_generator_file(path / "generator.safetensors")
    checkpoint = path.resolve() if (path / "state.safetensors").is_file() else latest_checkpoint(path / "checkpoints")
    if checkpoint is None:
        raise CheckpointError(f"{path} is neither a run nor a checkpoint: no generator.safetensors, no checkpoints")
    run = checkpoint.parent.parent
    if not (run / "config.yaml").is_file():
        raise CheckpointError(f"{checkpoint} is not inside a run folder: there is no {run / 'config.yaml'}")
    progress = read_state(checkpoint)["progress"]
    config = load_config(run / "config.yaml")
    tensors, _ = read_tensors(checkpoint / "state.safetensors", "average." if config.train.ema_decay else "generator.")
    network = generator_from_state(config, tensors, checkpoint)
    return network, config, {"class_names": read_class_names(run), "kimg": progress["images"] / 1000}
