"""From a path to a generator: run folders, checkpoint folders, files of a generator, repositories of a hub."""

import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

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
from hamgan.networks import Generator, batch_norm_statistics
from hamgan.sampling.generator import LoadedGenerator
from hamgan.sampling.inference import fold_spectral_norm

StoredStatistics = Literal["running", "ema"]
"""Batch-norm statistics that a checkpoint holds: of G itself, or the average of them that the average of G keeps."""
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def load_generator(
    path: str | Path,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    *,
    average: bool = True,
    batch_norm: StoredStatistics | None = None,
) -> LoadedGenerator:
    """Load a run folder, a checkpoint folder, a ``generator.safetensors`` or a hub's ``owner/name`` for sampling.

    ``average`` takes the average of G where the run keeps one, else the trained G; ``batch_norm`` the running
    batch-norm statistics of G or their average (ema), None those of the network that is loaded. What a file of the
    averaged generator does not hold is taken from the run's newest checkpoint.

    Raises CheckpointError naming the path and what is wrong with it, ConfigError for a device that cannot be used and
    for weights or statistics that are not there.

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
    is_average, stored = bool(config.train.ema_decay), _statistics(config.train.ema_decay > 0)
    wanted = is_average and average, batch_norm or _statistics(is_average and average)
    if wanted != (is_average, stored):
        network, header["kimg"] = _put_together(place, config, *wanted)
        is_average, stored = wanted
    try:
        network = network.to(device=device, dtype=dtype)
    except (RuntimeError, AssertionError) as error:  # an unknown name, or a torch that was built without it
        raise ConfigError(f"device {device} cannot be used: {str(error).splitlines()[0]}") from error
    names, kimg = header.pop("class_names", None), header.pop("kimg", None)
    return LoadedGenerator(
        fold_spectral_norm(network),
        config,
        class_names=names,
        kimg=kimg,
        source=str(path),
        header=header,
        is_average=is_average,
        batch_norm=stored,
    )


def _statistics(is_average: bool) -> StoredStatistics:
    return "ema" if is_average else "running"


def _put_together(
    path: Path, config: Config, is_average: bool, batch_norm: StoredStatistics
) -> tuple[Generator, float]:
    """Weights of one network with the statistics of the other, and their kimg; only whole checkpoints have both."""
    wanted = f"{'the average of G' if is_average else 'G itself'} with {batch_norm} batch-norm statistics"
    if batch_norm == "ema" and not config.train.ema_decay:
        raise ConfigError(f"{wanted} needs an average of G; {path} keeps none (train.ema_decay is 0)")
    checkpoint: Path | None = path.resolve()
    if not (path / "state.safetensors").is_file():
        checkpoint = latest_checkpoint(path / "checkpoints") if (path / "checkpoints").is_dir() else None
    if checkpoint is None:
        raise ConfigError(f"{wanted} needs a run or a checkpoint folder; {path} has the averaged generator alone")
    tensors = _read_part(checkpoint, is_average)
    tensors |= batch_norm_statistics(_read_part(checkpoint, batch_norm == "ema"))
    kimg = read_state(checkpoint)["progress"]["images"] / 1000
    return generator_from_state(config, tensors, checkpoint), kimg


def _read_part(checkpoint: Path, is_average: bool) -> dict[str, Tensor]:
    part = "average" if is_average else "generator"
    return read_tensors(checkpoint / "state.safetensors", f"{part}.")[0]


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
    network = generator_from_state(config, _read_part(checkpoint, bool(config.train.ema_decay)), checkpoint)
    return network, config, {"class_names": read_class_names(run), "kimg": progress["images"] / 1000}
