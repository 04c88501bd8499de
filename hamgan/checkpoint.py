"""Checkpoints: safetensors and JSON, written whole or not at all, loaded without running any code.

A checkpoint is a folder ``checkpoints/NAME`` named by its thousands of images. It holds ``state.safetensors`` (both
networks, the average of G, both optimisers) and ``state.json`` (counters and the sha256 of the former).
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hamgan.config import CheckpointConfig, Config, config_from_dict, config_to_dict, validate
from hamgan.layers import SpectralWeight
from hamgan.networks import Generator
from hamgan.step import GanStep

GENERATOR_FORMAT = "hamgan-generator"


class CheckpointError(RuntimeError):
    """A checkpoint or generator file that cannot be used; the message names the file and the reason."""


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def checkpoint_name(images: int) -> str:
    """Folder name of a checkpoint after so many images: thousands, with a fraction where there is one."""
    return f"{images // 1000:08d}" + (f".{images % 1000:03d}" if images % 1000 else "")


@dataclass
class Progress:
    """Where a run stands; with the configuration it determines all that follows."""

    images: int = 0
    """Real images seen by D."""
    steps: int = 0
    """Steps of G."""
    seconds: float = 0.0
    """Time spent training, over all restarts."""
    fid: dict[str, float] = field(default_factory=dict)
    """FID by checkpoint name, for keeping the best."""


# A checkpoint's folder; what lies beside them (a user's notes, a leftover of a crash) is no checkpoint.
_NAME = re.compile(r"\d{8,}(\.\d{3})?")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader or a crash sees the old or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        _fsync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    # safetensors stores rows in order; the layout in memory is the owner's affair.
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, path, metadata)
    _fsync(path)


def _optimizer_tensors(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}.{key}"] = value
    return tensors


def _load_optimizer(optimizer: torch.optim.Optimizer, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    for name, parameter in network.named_parameters():
        state = {}
        for key in ("exp_avg", "exp_avg_sq"):
            if f"{name}.{key}" in tensors:
                # In the parameter's memory layout: the fused kernel walks all of them side by side.
                state[key] = torch.empty_like(parameter).copy_(tensors[f"{name}.{key}"]).detach()
        if state:
            state["step"] = tensors[f"{name}.step"].to(parameter.device)
            optimizer.state[parameter] = state


def networks_of(step: GanStep) -> dict[str, nn.Module]:
    """generator, discriminator and, where one is kept, the average of G."""
    networks: dict[str, nn.Module] = {"generator": step.generator, "discriminator": step.discriminator}
    if step.average is not None:
        networks["average"] = step.average
    return networks


def state_tensors(step: GanStep) -> dict[str, Tensor]:
    """Everything that a step owns, by name.

    generator.*, discriminator.*, average.*, *_optimizer.*, logit_averages; sums.* and counts.*: metrics not yet logged.
    """
    tensors = {"logit_averages": step.logit_averages}
    tensors |= {f"sums.{name}": value for name, value in step.sums.items()}
    tensors |= {f"counts.{name}": torch.tensor(count) for name, count in step.counts.items()}
    for prefix, network in networks_of(step).items():
        tensors |= {f"{prefix}.{key}": value for key, value in network.state_dict().items()}
    for prefix, optimizer, network in _optimizers(step):
        tensors |= {f"{prefix}.{key}": value for key, value in _optimizer_tensors(optimizer, network).items()}
    return tensors


def _optimizers(step: GanStep) -> list[tuple[str, torch.optim.Optimizer, nn.Module]]:
    return [
        ("generator_optimizer", step.generator_optimizer, step.generator),
        ("discriminator_optimizer", step.discriminator_optimizer, step.discriminator),
    ]


def load_state_tensors(step: GanStep, tensors: dict[str, Tensor]) -> None:
    """The inverse of `state_tensors`; raises CheckpointError when names or shapes do not fit."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{prefix}.")}

    try:
        for prefix, network in networks_of(step).items():
            network.load_state_dict(part(prefix))
        for prefix, optimizer, network in _optimizers(step):
            _load_optimizer(optimizer, network, part(prefix))
        step.logit_averages.copy_(tensors["logit_averages"])
        step.sums = {name: value.to(step.accelerator.device) for name, value in part("sums").items()}
        step.counts = {name: int(value) for name, value in part("counts").items()}
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint is of another network: {_short(error)}") from error


def save_checkpoint(folder: Path, step: GanStep, progress: Progress) -> Path:
    """Write ``folder/NAME`` under a temporary name, sync it to disk and rename it. Returns its path."""
    path = folder / checkpoint_name(progress.images)
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _save_tensors(state_tensors(step), temporary / "state.safetensors", {"format": "hamgan-state"})
        scaler = step.accelerator.scaler
        state = {
            "progress": vars(progress),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "sha256": _sha256(temporary / "state.safetensors"),
        }
        write_atomically(temporary / "state.json", json.dumps(state, indent=1))
        _fsync(temporary)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
        _fsync(folder)
    except OSError as error:
        raise CheckpointError(f"could not write {path}: {error}; older checkpoints are untouched") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def read_state(path: Path) -> dict[str, Any]:
    """state.json of a checkpoint whose checksum holds; raises CheckpointError."""
    try:
        state = json.loads((path / "state.json").read_text())
        digest = _sha256(path / "state.safetensors")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is incomplete: {error}") from error
    if not isinstance(state, dict) or digest != state.get("sha256"):
        raise CheckpointError(f"{path}/state.safetensors is damaged: its sha256 is not the one in state.json")
    if not {"progress", "scaler"} <= set(state):
        raise CheckpointError(f"{path}/state.json is damaged: it does not say where the run stands")
    return state


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: float(path.name))


def remove_leftovers(folder: Path) -> None:
    """Delete what a process that was killed while saving left behind, gigabytes at full size."""
    for path in folder.glob(".*.tmp"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def latest_checkpoint(folder: Path, warn: Any = print) -> Path | None:
    """The newest checkpoint whose checksum holds; damaged ones are named and passed over.

    Raises CheckpointError when there are checkpoints but none is valid.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        try:
            read_state(path)
        except CheckpointError as error:
            warn(f"passing over a checkpoint: {error}")
            continue
        return path
    if paths:
        raise CheckpointError(f"none of the {len(paths)} checkpoints in {folder} is valid")
    return None


def load_checkpoint(path: Path, step: GanStep) -> Progress:
    """Restore networks, average, optimisers and scaler from one checkpoint; returns where the run stood."""
    state = read_state(path)
    load_state_tensors(step, read_tensors(path / "state.safetensors")[0])
    if state["scaler"] is not None and step.accelerator.scaler is not None:
        step.accelerator.scaler.load_state_dict(state["scaler"])
    try:
        return Progress(**state["progress"])
    except TypeError as error:
        raise CheckpointError(f"{path}/state.json is of another version: {error}") from error


def rotate(folder: Path, config: CheckpointConfig, fid: dict[str, float], images_per_step: int = 1) -> None:
    """Delete checkpoints that are neither among the newest, nor the best by FID, nor milestones.

    A milestone is the first checkpoint at or after a multiple of ``milestone_kimg``, less than one step after it.
    """
    paths = list_checkpoints(folder)
    known = {path.name for path in paths}
    best = sorted((name for name in fid if name in known), key=lambda name: fid[name])[: config.keep_best]
    keep = {path.name for path in paths[-max(1, config.keep_last) :]} | set(best)
    for path in paths:
        images, interval = round(float(path.name) * 1000), round(config.milestone_kimg * 1000)
        milestone = interval > 0 and images % interval < images_per_step
        if path.name not in keep and not milestone:
            shutil.rmtree(path)


def read_tensors(path: Path, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (without the prefix, only those that have it) and metadata of a safetensors file; CheckpointError."""
    try:
        with safe_open(path, framework="pt") as file:
            keys: Iterator[str] = (key for key in file.keys() if key.startswith(prefix))  # noqa: SIM118
            return {key[len(prefix) :]: file.get_tensor(key) for key in keys}, file.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {_short(error)}") from error


def save_generator(
    path: Path,
    generator: Generator,
    config: Config,
    *,
    class_names: list[str] | None = None,
    kimg: float = 0.0,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a generator alone, its configuration and class names in the header: all that sampling needs."""
    metadata = {
        "format": GENERATOR_FORMAT,
        "config": json.dumps(config_to_dict(config)),
        "class_names": json.dumps(class_names),
        "kimg": json.dumps(kimg),
    } | {key: json.dumps(value) for key, value in (extra or {}).items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _save_tensors(generator.state_dict(), temporary, metadata)
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f"could not write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_generator_file(path: Path) -> tuple[Generator, Config, dict[str, Any]]:
    """Read a file of `save_generator`: the network in evaluation mode, its configuration, the other header entries."""
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != GENERATOR_FORMAT:
        raise CheckpointError(f"{path} is a safetensors file, but not a HamGAN generator")
    try:
        header = {key: json.loads(value) for key, value in metadata.items() if key != "format"}
        config = config_from_dict(header.pop("config"))
        validate(config)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"the header of {path} is damaged: {_short(error)}") from error
    names = header.get("class_names")
    if names is not None and (not isinstance(names, list) or len(names) != config.data.num_classes):
        raise CheckpointError(f"the header of {path} is damaged: its class names are not one per class")
    return generator_from_state(config, tensors, path), config, header


def generator_from_state(config: Config, tensors: dict[str, Tensor], path: Path) -> Generator:
    """A generator in evaluation mode with the given weights; CheckpointError when they do not fit."""
    if config.data.num_classes is None:
        raise CheckpointError(f"the configuration of {path} has no data.num_classes")
    with torch.device("meta"):
        generator = Generator(config.generator, config.resolution, config.data.num_classes)
    # Before any memory is taken: a damaged header may ask for more than there is.
    expected = {name: value.shape for name, value in generator.state_dict().items()}
    found = {name: value.shape for name, value in tensors.items()}
    wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    if wrong:
        examples = ", ".join(
            f"{name} {list(found.get(name, ()))} for {list(expected.get(name, ()))}" for name in wrong[:3]
        )
        raise CheckpointError(f"{len(wrong)} weights in {path} do not fit its configuration: {examples}")
    generator.to_empty(device="cpu").load_state_dict(tensors)
    for module in generator.modules():
        if isinstance(module, SpectralWeight):  # the one buffer that no file holds
            module.get_buffer("sigma").fill_(1.0)
    return generator.eval().requires_grad_(False)
