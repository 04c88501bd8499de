"""Measure time, memory and FLOPs of alternatives, in turn in one process."""

import os
import statistics
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's remarks about a missing GPU

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hamgan.progress import ProgressBar

Work = Callable[[], object]
Clock = Literal["cpu", "wall"]


@dataclass(frozen=True)
class Timings:
    """Hold seconds of every round per alternative, in the order of the rounds; ``clock`` says which seconds."""

    seconds: dict[str, list[float]]
    clock: Clock

    def median(self, name: str) -> float:
        """Return the median over the rounds, in seconds."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """Return the median over the rounds of this alternative's time divided by that of ``base``."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return statistics.median(one / other for one, other in pairs)

    def spread(self, name: str) -> float:
        """Return the interquartile range divided by the median: smaller differences mean nothing."""
        values = self.seconds[name]
        if len(values) < 2:
            return 0.0
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return (high - low) / self.median(name)

    def to_json(self) -> dict[str, Any]:
        """Return all rounds, their medians and spreads."""
        return {
            "clock": self.clock,
            "seconds": self.seconds,
            "median": {name: self.median(name) for name in self.seconds},
            "spread": {name: self.spread(name) for name in self.seconds},
        }


@dataclass(frozen=True)
class Costs:
    """Hold what each alternative takes: its times, its peak bytes, and its FLOPs where they were counted."""

    timings: Timings
    memory: dict[str, int]
    flops: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return all figures."""
        return {"timings": self.timings.to_json(), "peak_bytes": self.memory, "flops": self.flops}


def measure_costs(
    works: Mapping[str, Work],
    rounds: int,
    device: torch.device,
    *,
    warmup: int = 1,
    uncounted: Collection[str] = (),
) -> Costs:
    """Measure time in turn, then memory and FLOPs one after the other; ``uncounted`` names those without FLOPs."""
    timings = time_in_turn(works, rounds, warmup=warmup, device=device)
    memory = {name: peak_memory(work, device) for name, work in works.items()}
    return Costs(timings, memory, {name: count_flops(work) for name, work in works.items() if name not in uncounted})


def time_in_turn(
    works: Mapping[str, Work],
    rounds: int = 7,
    *,
    warmup: int = 1,
    device: torch.device | str = "cpu",
    clock: Clock | None = None,
) -> Timings:
    """Call every alternative once per round: A B C A B C ...; the first ``warmup`` rounds are not counted.

    ``clock`` None takes CPU time on one CPU thread, which other work on the machine disturbs least, else wall time. CPU
    time counts all threads of this process, but no other processes.
    """
    device = torch.device(device)
    clock = clock or ("cpu" if device.type == "cpu" and torch.get_num_threads() == 1 else "wall")
    seconds: dict[str, list[float]] = {name: [] for name in works}
    with ProgressBar((warmup + rounds) * len(works), "measure", "runs", leave=False) as bar:
        for number in range(-warmup, rounds):
            for name, work in works.items():
                taken = _time(work, device, clock)
                bar.update()
                if number >= 0:
                    seconds[name].append(taken)
    return Timings(seconds, clock)


def _time(work: Work, device: torch.device, clock: Clock) -> float:
    now = time.process_time if clock == "cpu" else time.perf_counter
    synchronise(device)
    start = now()
    work()
    synchronise(device)
    return now() - start


def synchronise(device: torch.device) -> None:
    """Wait for what was queued on an accelerator."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory(work: Work, device: torch.device | str = "cpu") -> int:
    """Return the most bytes of tensors alive at a time during ``work``, beyond those alive before it.

    On a GPU the allocator's own count; on a CPU the sum of the profiler's allocations and releases (tensors of torch
    only, not the interpreter or other libraries).
    """
    device = torch.device(device)
    if device.type == "cuda":
        synchronise(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        synchronise(device)
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
        work()
    results = profile.profiler.kineto_results if profile.profiler else None
    events = results.events() if results else []
    alive = peak = 0
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def peak_resident(work: Work) -> int | None:
    """Return the most memory of this process during ``work`` beyond what it had before, in bytes; None off Linux.

    Unlike `peak_memory` it sees other libraries than torch. A thread looks every 5 ms.
    """
    if not Path("/proc/self/statm").exists():
        return None
    before = peak = _resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return peak - before


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def count_flops(work: Work) -> int:
    """Count the floating-point operations of matrix products and convolutions in ``work``, two per multiply-add.

    Attention counts as two matrix products, whose fused kernels compute some again on the way back.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def measure_matmul(device: torch.device, dtype: torch.dtype = torch.float32, rounds: int = 7) -> float:
    """Measure FLOP/s of a large square matrix product: what the machine can do at most."""
    size = 1024 if device.type == "cpu" else 8192
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    timings = time_in_turn({"product": lambda: torch.mm(left, right, out=product)}, rounds, device=device)
    return 2 * size**3 / timings.median("product")
