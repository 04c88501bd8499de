"""The whole state of a run as tensors and counters, saved to a checkpoint folder and restored from it."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hamgan.checkpoint.files import (
    CheckpointError,
    fsync,
    read_tensors,
    save_tensors,
    sha256,
    temporary_name,
    to_host,
    write_atomically,
)
from hamgan.checkpoint.progress import Progress, checkpoint_name, read_state, state_text
from hamgan.messages import one_line
from hamgan.step import GanStep


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
        raise CheckpointError(f"the checkpoint is of another network: {one_line(error)}") from error


@dataclass
class Snapshot:
    """A run's state at one moment, in main memory and its own: training goes on while it is written."""

    name: str
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    """Counters and the scaler, as plain JSON values."""

    def generator_tensors(self) -> dict[str, Tensor]:
        """Weights of the network to sample from: the average of G, or G itself where none is kept."""
        prefix = "average." if any(name.startswith("average.") for name in self.tensors) else "generator."
        return {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}

    def write(self, folder: Path) -> Path:
        """Write ``folder/NAME`` under a temporary name, sync it to disk and rename it; CheckpointError."""
        path = folder / self.name
        temporary = temporary_name(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            save_tensors(self.tensors, temporary / "state.safetensors", {"format": "hamgan-state"})
            state = self.state | {"sha256": sha256(temporary / "state.safetensors")}
            write_atomically(temporary / "state.json", state_text(state))
            fsync(temporary)
            if path.exists():  # damaged and passed over, now made again
                shutil.rmtree(path)
            temporary.rename(path)
            fsync(folder)
        except OSError as error:
            raise CheckpointError(f"could not write {path}: {error}; older checkpoints are untouched") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return path


def take_snapshot(step: GanStep, progress: Progress) -> Snapshot:
    """Copy all that a run has to remember."""
    scaler = step.accelerator.scaler
    # Through JSON: what is written later must not change with the original.
    state = {"progress": vars(progress), "scaler": scaler.state_dict() if scaler is not None else None}
    tensors = to_host(state_tensors(step), copy=True)
    return Snapshot(checkpoint_name(progress.images), tensors, json.loads(json.dumps(state)))


def save_checkpoint(folder: Path, step: GanStep, progress: Progress) -> Path:
    """Write ``folder/NAME`` at once. Returns its path."""
    return take_snapshot(step, progress).write(folder)


def load_checkpoint(path: Path, step: GanStep) -> Progress:
    """Restore networks, average, optimisers and scaler from one checkpoint; returns where the run stood."""
    state = read_state(path)
    load_state_tensors(step, read_tensors(path / "state.safetensors")[0])
    if state["scaler"] is not None and step.accelerator.scaler is not None:
        step.accelerator.scaler.load_state_dict(state["scaler"])
    return Progress(**state["progress"])
