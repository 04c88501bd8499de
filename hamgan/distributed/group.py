"""Start and coordinate the processes that share the work of training, evaluation or sampling.

Without a launcher there is one process, and every function here works for it alone.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hamgan.distributed.launcher import check_launcher

T = TypeVar("T")

SECONDS_TO_LEAVE = 2.0
"""Time limit for closing a process group after an error, which may hang if others are gone or in a collective."""


def start_processes() -> str | None:
    """Join the process group if `accelerate launch` or `torchrun` started several; returns this process's device.

    Returns None for a single process, which may choose its device freely. On GPUs the group has gloo as well as NCCL,
    so that messages between processes do not make a GPU wait.
    """
    check_launcher()
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    from accelerate import PartialState

    # Without `cpu`, processes on a machine without an accelerator do not form a group.
    cpu = not torch.accelerator.is_available()
    on_gpus = torch.cuda.is_available() and "LOCAL_RANK" in os.environ
    return str(PartialState(cpu, backend="cuda:nccl,cpu:gloo" if on_gpus else None).device)


@contextmanager
def joined_processes() -> Iterator[str | None]:
    """Call `start_processes`, and destroy the process group at the end, also after an error.

    A group that existed before is kept.
    """
    destroy = (lambda: None) if _in_a_group() else _destroy_group
    try:
        yield start_processes()
    except BaseException:
        leave = threading.Thread(target=destroy, daemon=True)
        leave.start()
        leave.join(SECONDS_TO_LEAVE)
        raise
    destroy()


def _in_a_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def _destroy_group() -> None:
    if _in_a_group():
        dist.destroy_process_group()


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _in_a_group() else 1


def rank() -> int:
    """Return the index of this process; 0 is the main process, which writes files."""
    return dist.get_rank() if _in_a_group() else 0


def mean_over_processes_(tensor: Tensor) -> Tensor:
    """Replace a contiguous tensor by its mean over the processes, and return it; every process must call this."""
    if (size := world_size()) > 1:
        dist.all_reduce(tensor)
        tensor /= size
    return tensor


def stack_processes(tensor: Tensor) -> Tensor:
    """Return the tensors [n, ...] of all processes, stacked [processes, n, ...]; every process must call this."""
    if world_size() == 1:
        return tensor[None]
    rows = tensor.new_empty(world_size() * len(tensor), *tensor.shape[1:])
    # Torch 2.11 has the old name only, 2.14 warns of it.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(rows, tensor.contiguous())
    return rows.view(world_size(), *tensor.shape)


def from_main(value: T) -> T:
    """Return the main process's value (anything that can be pickled) on all processes."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


@dataclass(frozen=True)
class Processes:
    """Divide work among processes and combine its results; this process is ``rank`` of ``size``."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Processes":
        """Return the processes of torch.distributed, or one process if no group was started."""
        return cls(rank(), world_size())

    @property
    def is_main(self) -> bool:
        """Return whether this process writes files and draws the progress bar."""
        return self.rank == 0

    def share(self, total: int) -> range:
        """Return this process's range of the indices below ``total``; sizes differ by at most one."""
        return range(self.rank * total // self.size, (self.rank + 1) * total // self.size)

    def sum_(self, *tensors: Tensor) -> None:
        """Replace every tensor by its sum over the processes, in its own precision."""
        if self.size == 1:
            return
        for tensor in tensors:
            moved = tensor.to(_communication_device(tensor)).contiguous()
            dist.all_reduce(moved)
            tensor.copy_(moved)

    def gather_rows(self, rows: Tensor, total: int) -> Tensor:
        """Return all ``total`` rows, ordered by index and on the CPU, from the rows of each ``share(total)``."""
        if self.size == 1:
            return rows.cpu()
        largest = -(-total // self.size)
        padded = rows.new_zeros((largest, *rows.shape[1:]), device=_communication_device(rows))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        counts = [len(Processes(rank, self.size).share(total)) for rank in range(self.size)]
        return torch.cat([part[:count].cpu() for part, count in zip(parts, counts, strict=True)])

    def any(self, condition: bool) -> bool:
        """Return whether the condition is true on any process; every process must call this."""
        flag = torch.tensor([float(condition)], dtype=torch.float64)
        self.sum_(flag)
        return bool(flag.item())


def _communication_device(tensor: Tensor) -> torch.device:
    """Return the device for collectives: NCCL alone handles only GPU memory, gloo lacks operations for it."""
    backends = dict(pair.split(":") for pair in dist.get_backend_config().split(","))
    if tensor.is_cuda:
        return torch.device("cpu") if backends.get("cuda", "gloo") == "gloo" else tensor.device
    return torch.device("cpu") if "cpu" in backends else torch.device("cuda", torch.cuda.current_device())
