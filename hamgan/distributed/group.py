"""Start, ask and join the processes of a run, of an evaluation or of sampling, which share the work.

Without a launcher there is one process, and every function here answers for it alone.
"""

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hamgan.distributed.launcher import check_launcher

T = TypeVar("T")


def start_processes() -> str | None:
    """Join the other processes when `accelerate launch` or `torchrun` started several; return this one's device.

    Returns None where there is one process, which may choose its device freely.
    """
    check_launcher()
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    from accelerate import PartialState

    # Without `cpu`, processes on a machine without an accelerator do not find each other.
    return str(PartialState(cpu=not torch.accelerator.is_available()).device)


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the index of this process; 0 is the main process, which writes files."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def mean_over_processes_(tensor: Tensor) -> Tensor:
    """Replace a contiguous tensor by its mean over the processes, and return it; every process must call this."""
    if (size := world_size()) > 1:
        dist.all_reduce(tensor)
        tensor /= size
    return tensor


def from_main(value: T) -> T:
    """Return the main process's value (anything that can be pickled) on all processes."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


@dataclass(frozen=True)
class Processes:
    """Divide work among processes and join its results: this process is ``rank`` of ``size``."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Processes":
        """Return the processes of torch.distributed, or one process where no group was started."""
        return cls(rank(), world_size())

    @property
    def is_main(self) -> bool:
        """Return whether this process writes files and draws the progress bar."""
        return self.rank == 0

    def share(self, total: int) -> range:
        """Return the indices below ``total`` of this process: contiguous, sizes differ by one at most."""
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
        """Return whether the condition holds on some process; every process must call this."""
        flag = torch.tensor([float(condition)], dtype=torch.float64)
        self.sum_(flag)
        return bool(flag.item())


def _communication_device(tensor: Tensor) -> torch.device:
    """Return a device that the backend takes: NCCL moves GPU memory only, gloo lacks operations for it."""
    if dist.get_backend() == "nccl":
        return tensor.device if tensor.is_cuda else torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
