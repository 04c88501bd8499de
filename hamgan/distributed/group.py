"""The processes of an evaluation or of sampling: who takes which samples, and how their sums meet."""

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """This process among those that evaluate together."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Processes":
        """The processes of torch.distributed, or one process where no group was started."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and draws the progress bar."""
        return self.rank == 0

    def share(self, total: int) -> range:
        """The indices below `total` that belong to this process: contiguous, sizes differ by one at most."""
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
        """All `total` rows in the order of their indices, from the rows of `share(total)`; the result is on the CPU."""
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
        """Whether the condition holds on some process; every process must call it."""
        if self.size == 1:
            return condition
        flag = torch.tensor([float(condition)], dtype=torch.float64)
        self.sum_(flag)
        return bool(flag.item())


def _communication_device(tensor: Tensor) -> torch.device:
    """NCCL moves GPU memory only, gloo is asked for CPU memory (its GPU path lacks operations)."""
    if dist.get_backend() == "nccl":
        return tensor.device if tensor.is_cuda else torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


T = TypeVar("T")


def from_main(accelerator: Accelerator, value: T) -> T:
    """The main process's value, on all processes."""
    values = [value]
    if accelerator.num_processes > 1:
        broadcast_object_list(values)
    return values[0]
