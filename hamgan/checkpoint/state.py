"""Save the whole state of a run, tensors and counters, to a checkpoint folder, and restore it."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hamgan.checkpoint.progress import Progress, checkpoint_name, read_state, state_text
from hamgan.checkpoint.tensors import read_tensors, save_tensors, to_host
from hamgan.errors import CheckpointError, one_line
from hamgan.files import JsonObject, fsync, sha256, temporary_name, write_atomically


class TrainingState(Protocol):
    """Describe networks in training that can be saved and restored, such as `hamgan.training.step.GanStep`."""

    accelerator: Accelerator

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Return the networks by name; the first one, or its ``average``, is the result of the run."""

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers by the names of their networks."""

    @property
    def sampler(self) -> nn.Module:
        """Return the network that is the result of the run: an average, if one is kept."""

    def extra_state(self) -> dict[str, Tensor]:
        """Return the state tensors that belong to neither networks nor optimisers."""

    def load_extra_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore the extra state from all tensors of a checkpoint."""

    def share_sums(self) -> None:
        """Average pending sums over all processes."""


def _optimizer_tensors(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    named = network.named_parameters()
    states = ((f"{name}.{key}", value) for name, p in named for key, value in optimizer.state.get(p, {}).items())
    return {name: value for name, value in states if isinstance(value, Tensor)}  # SGD has None before its first step


def _load_optimizer(optimizer: torch.optim.Optimizer, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Restore the state of any optimiser: tensors of a parameter's shape, and counts of its steps."""
    for name, parameter in network.named_parameters():
        state = {}
        for key, value in select_tensors(tensors, name).items():
            if key == "step":
                state[key] = value.to(parameter.device)
            elif "." not in key:  # otherwise it belongs to a nested parameter
                # In the parameter's memory layout, which the fused kernel expects of all state.
                state[key] = torch.empty_like(parameter).copy_(value).detach()
        if state:
            optimizer.state[parameter] = state


def state_tensors(step: TrainingState) -> dict[str, Tensor]:
    """Return all tensors of a run's state by name: NETWORK.*, NETWORK_optimizer.* and the extra state."""
    tensors = step.extra_state()
    for name, network in step.networks.items():
        tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
    for name, optimizer in step.optimizers.items():
        found = _optimizer_tensors(optimizer, step.networks[name])
        tensors |= {f"{name}_optimizer.{key}": value for key, value in found.items()}
    return tensors


def load_state_tensors(step: TrainingState, tensors: dict[str, Tensor]) -> None:
    """Restore the tensors of `state_tensors`; CheckpointError if names or shapes do not fit."""
    try:
        for name, network in step.networks.items():
            network.load_state_dict(select_tensors(tensors, name))
        for name, optimizer in step.optimizers.items():
            _load_optimizer(optimizer, step.networks[name], select_tensors(tensors, f"{name}_optimizer"))
        step.load_extra_state(tensors)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint is of another network: {one_line(error)}") from error


def select_tensors(tensors: dict[str, Tensor], owner: str) -> dict[str, Tensor]:
    """Return the tensors named ``owner.*``, without that prefix."""
    return {key[len(owner) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{owner}.")}


@dataclass
class Snapshot:
    """Hold a copy of a run's state, so that training goes on while it is written."""

    name: str
    tensors: dict[str, Tensor]
    state: JsonObject
    """Counters and the scaler, as plain JSON values."""
    passed_on: str = "generator"
    """Name of the network that is the result of the run, if no average is kept."""

    def weights(self) -> dict[str, Tensor]:
        """Return the resulting weights: the average, or the network itself if none is kept."""
        return select_tensors(self.tensors, "average") or select_tensors(self.tensors, self.passed_on)

    def write(self, folder: Path) -> Path:
        """Write ``folder/NAME`` under a temporary name, sync it to disk and rename it; raises CheckpointError."""
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
            if path.exists():  # damaged and skipped before, now written again
                shutil.rmtree(path)
            temporary.rename(path)
            fsync(folder)
        except OSError as error:
            raise CheckpointError(f"could not write {path}: {error}; older checkpoints are untouched") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return path


def take_snapshot(step: TrainingState, progress: Progress) -> Snapshot:
    """Copy the whole state of a run."""
    scaler = step.accelerator.scaler
    # Through JSON, which copies: the original may change before it is written.
    state = {"progress": vars(progress), "scaler": scaler.state_dict() if scaler is not None else None}
    tensors = to_host(state_tensors(step), copy=True)
    passed_on = next(iter(step.networks))
    return Snapshot(checkpoint_name(progress.images), tensors, json.loads(json.dumps(state)), passed_on)


def save_checkpoint(folder: Path, step: TrainingState, progress: Progress) -> Path:
    """Write ``folder/NAME`` at once; return its path."""
    return take_snapshot(step, progress).write(folder)


def load_checkpoint(path: Path, step: TrainingState) -> Progress:
    """Restore networks, average, optimisers and scaler from a checkpoint; returns its progress."""
    state = read_state(path)
    load_state_tensors(step, read_tensors(path / "state.safetensors")[0])
    if state["scaler"] is not None and step.accelerator.scaler is not None:
        step.accelerator.scaler.load_state_dict(state["scaler"])
    return Progress(**state["progress"])
