"""What a piece of work asks of a machine, operator by operator: FLOPs, memory traffic, and the time at its ceilings."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.machine import Ceilings
from benchmarks.timing import Work

# The first kind with a fragment in an operator's or kernel's name holds it.
_FRAGMENTS = {
    "optimiser, average": ("adam", "_foreach"),
    "convolution": ("conv", "fprop", "dgrad", "wgrad"),
    "batch norm": ("batch_norm", "batchnorm", "bn_fw", "bn_bw"),
    "resampling": ("upsample", "avg_pool", "max_pool"),
    "matrix product": ("mm", "bmm", "addmv", "aten::mv", "aten.mv", "aten::dot", "aten.dot", "addr", "gemm", "gemv"),
    "fused elementwise": ("fused",),
    "copies": ("copy", "clone", "aten::cat", "aten.cat", "memcpy", "memset"),
}
KINDS = (*_FRAGMENTS, "other")


def kind_of(name: str) -> str:
    """The kind of an operator (``aten::mm``, ``aten.mm.default``) or kernel by its name."""
    name = name.lower()
    found = (kind for kind, fragments in _FRAGMENTS.items() if any(fragment in name for fragment in fragments))
    return next(found, "other")


@dataclass
class Demand:
    """Calls, FLOPs (two per multiply-add, matrix products and convolutions only) and bytes read and written."""

    calls: int = 0
    flops: int = 0
    bytes: int = 0
    seconds: float = 0.0
    """The longer of the two at the machine's ceilings, summed over the calls."""


@dataclass
class OperatorLog(TorchDispatchMode):
    """Adds up the demand of every operator that runs inside it, by kind; views and shapes cost nothing.

    Bytes are those of all tensors that an operator reads and writes, as if no cache held them.
    """

    ceilings: Ceilings
    kinds: dict[str, Demand] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.is_view or func._schema.name in _FREE:
            return result
        demand = self.kinds.setdefault(kind_of(str(func)), Demand())
        count = flop_registry.get(func._overloadpacket)
        flops = count(*args, **kwargs, out_val=result) if count else 0
        moved = sum(_bytes(tensor) for tensor in tensors_in((args, tuple(kwargs.values()), result)))
        demand.calls += 1
        demand.flops += flops
        demand.bytes += moved
        demand.seconds += max(flops / self.ceilings.matmul, moved / self.ceilings.bandwidth)
        return result


_FREE = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::detach", "aten::_unsafe_view", "aten::alias"}


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors in nested lists and tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def _bytes(tensor: Tensor) -> int:
    """Of the values themselves: broadcast axes are read once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= 1 if stride == 0 else size
    return count * tensor.element_size()


def measure_demand(work: Work, ceilings: Ceilings) -> dict[str, Demand]:
    """The demand of one call of ``work`` by kind of operator; not for compiled work."""
    with OperatorLog(ceilings) as log:
        work()
    return log.kinds


def profile_kinds(work: Work, device: torch.device) -> dict[str, float]:
    """Seconds by kind of operator in one call of ``work``: of the CPU, or of the kernels on an accelerator."""
    on_device = device.type != "cpu"
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        work()
        if on_device:
            torch.accelerator.synchronize(device)
    seconds = dict.fromkeys(KINDS, 0.0)
    for event in _timed(profile.key_averages(), on_device):
        taken = event.self_device_time_total if on_device else event.self_cpu_time_total
        seconds[kind_of(event.key)] += taken / 1e6
    return {kind: value for kind, value in seconds.items() if value}


def _timed(events: Sequence[Any], on_device: bool) -> list[Any]:
    """On an accelerator the kernels themselves; the operators that launch them would count them twice."""
    if not on_device:
        return list(events)
    return [event for event in events if event.device_type != torch.autograd.DeviceType.CPU]
