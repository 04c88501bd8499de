"""Load generators from run folders, checkpoint folders, generator files and hub repositories."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from hamgan.checkpoint import (
    generator_from_state,
    latest_checkpoint,
    load_generator_file,
    read_class_names,
    read_evaluations,
    read_generator_config,
    read_state,
)
from hamgan.checkpoint.tensors import read_tensors
from hamgan.config import BatchNormStatistics, Config
from hamgan.config.reading import load_stored_config
from hamgan.errors import CheckpointError, ConfigError
from hamgan.files import JsonObject
from hamgan.networks import Generator
from hamgan.networks.batch_norm import batch_norm_statistics
from hamgan.networks.inference import fold_spectral_norm
from hamgan.sampling.generator import LoadedGenerator, find_device
from hamgan.sampling.places import check_place

StoredStatistics = Literal["running", "ema"]
"""Batch-norm statistics in a checkpoint: G's own (running), or their average, kept with the average of G (ema)."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def load_generator(
    path: str | Path,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    *,
    average: bool = True,
    batch_norm: StoredStatistics | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> LoadedGenerator:
    """Load a run folder, a checkpoint folder, a ``generator.safetensors`` or a hub's ``owner/name`` for sampling.

    ``average`` loads the average of G if the run keeps one; false loads the trained G. ``batch_norm`` selects G's
    running batch-norm statistics or their average (ema); None takes those stored with the loaded network. Statistics or
    weights that a file lacks are read from the run's newest checkpoint. On a hub, ``revision`` is a branch, tag or
    commit, and ``token`` replaces that of `hf auth login`.

    Raises CheckpointError naming the path and what is wrong with it, ConfigError for a device that cannot be used or
    weights or statistics that are missing.

    Example:
        >>> generator = load_generator(run, device="cpu")
        >>> generator.class_names[:3]
        ['astronaut', 'brick', 'cat']
    """
    check_place(path)
    place = Path(path)
    if not place.exists():
        from hamgan.sampling.hub import download

        place = download(str(path), revision, token)
    if place.is_dir():
        network, config, header = _load_folder(place)
    else:
        network, config, header = load_generator_file(place)
    is_average = header.pop("ema", config.train.ema_decay > 0)
    stored = header.pop("batch_norm", _default_statistics(is_average))
    other = is_average and not average
    wanted = batch_norm or (_default_statistics(False) if other else stored)
    if other or wanted != stored:
        is_average, stored = is_average and average, wanted
        network, header["kimg"] = _combine(place, config, is_average, stored)
        header.pop("evaluations", None)
    header.pop("folded", None)
    names, kimg, evaluations = (header.pop(key, None) for key in ("class_names", "kimg", "evaluations"))
    if kimg is not None:  # the run may have evaluations made after the file was written
        evaluations = read_evaluations(find_run(place), kimg, ema=is_average, batch_norm=stored) or evaluations
    return LoadedGenerator(
        _move(fold_spectral_norm(network), device, dtype),
        config,
        class_names=names,
        kimg=kimg,
        source=str(path),
        header=header,
        evaluations=evaluations,
        is_average=is_average,
        batch_norm=stored,
    )


def _move(network: Generator, device: str | torch.device | None, dtype: torch.dtype | None) -> Generator:
    """Move folded weights to the device and type that draw images."""
    if dtype not in (None, *DTYPES):
        raise ConfigError(f"dtype is {dtype!r}; allowed: {', '.join(map(str, DTYPES))}")
    return network.to(device=None if device is None else find_device(device), dtype=dtype)


def read_config(place: Path) -> Config:
    """Read the configuration of a run folder, checkpoint folder or generator file, without its weights."""
    file, stored = find_run(place) / "generator.safetensors", find_run(place) / "config.yaml"
    if place.is_dir() and stored.is_file():
        return load_stored_config(stored)
    return read_generator_config(place if place.is_file() else file)


def find_run(place: Path) -> Path:
    """Return the run folder that a path is or is inside of."""
    if place.name == "generator.safetensors":
        return place.parent
    return place.resolve().parent.parent if (place / "state.safetensors").is_file() else place


def _default_statistics(is_average: bool) -> StoredStatistics:
    return "ema" if is_average else "running"


def _combine(path: Path, config: Config, is_average: bool, batch_norm: BatchNormStatistics) -> tuple[Generator, float]:
    """Return the weights of one network with the statistics of the other, and their kimg, from a whole checkpoint."""
    wanted = f"{'the average of G' if is_average else 'G itself'} with {batch_norm} batch-norm statistics"
    if batch_norm == "ema" and not config.train.ema_decay:
        raise ConfigError(f"{wanted} needs an average of G; {path} keeps none (train.ema_decay is 0)")
    checkpoint = _find_checkpoint(path)
    if checkpoint is None:
        raise ConfigError(f"{wanted} needs a run or a checkpoint folder; {path} has the averaged generator alone")
    tensors = _read_part(checkpoint, is_average)
    tensors |= batch_norm_statistics(_read_part(checkpoint, batch_norm == "ema"))
    kimg = read_state(checkpoint)["progress"]["images"] / 1000
    return generator_from_state(config, tensors, checkpoint), kimg


def _find_checkpoint(path: Path) -> Path | None:
    """Return the path if it is a checkpoint folder, or the newest checkpoint if it is a run folder, else None."""
    if (path / "state.safetensors").is_file():
        return path.resolve()
    return latest_checkpoint(path / "checkpoints") if (path / "checkpoints").is_dir() else None


def _read_part(checkpoint: Path, is_average: bool) -> dict[str, Tensor]:
    part = "average" if is_average else "generator"
    return read_tensors(checkpoint / "state.safetensors", f"{part}.")[0]


def _load_folder(path: Path) -> tuple[Generator, Config, JsonObject]:
    """Load a run folder (its generator.safetensors, else its newest checkpoint) or one checkpoint folder."""
    if (path / "generator.safetensors").is_file():
        return load_generator_file(path / "generator.safetensors")
    checkpoint = _find_checkpoint(path)
    if checkpoint is None:
        raise CheckpointError(f"{path} is neither a run nor a checkpoint: no generator.safetensors, no checkpoints")
    run = checkpoint.parent.parent
    if not (run / "config.yaml").is_file():
        raise CheckpointError(f"{checkpoint} is not inside a run folder: there is no {run / 'config.yaml'}")
    progress = read_state(checkpoint)["progress"]
    config = load_stored_config(run / "config.yaml")
    network = generator_from_state(config, _read_part(checkpoint, bool(config.train.ema_decay)), checkpoint)
    return network, config, {"class_names": read_class_names(run), "kimg": progress["images"] / 1000}
