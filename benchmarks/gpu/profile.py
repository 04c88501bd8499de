"""Find where the time of a step goes on the device: kernels by kind, launches, and how fast they move memory."""

import argparse
from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu import Clock
from benchmarks.profiling import kind_of, profile_kernels
from benchmarks.report import Report, Table
from benchmarks.steps import benchmark_accelerator, make_workload, read_config
from benchmarks.train import check_forms
from hamgan.config.presets import find_config
from hamgan.errors import ConfigError

CONFIGS = ("hamgan_strong_imagenet128", "photos128")
BATCH, LONGEST = 256, 15
COMPUTING = ("convolution", "matrix product")
"""Kinds that arithmetic bounds, not memory."""


class CountBytes(TorchDispatchMode):
    """Sum the bytes of all operands and results of the operators inside, by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            tensors = {id(item): item for item in tree_leaves((args, result)) if isinstance(item, Tensor)}
            self.bytes[kind_of(str(func))] += sum(item.numel() * item.element_size() for item in tensors.values())
        return result


def run(options: argparse.Namespace, clock: Clock) -> Report:
    """Profile one step of every configuration and form."""
    batch = (options.batches or [BATCH])[0]
    report = Report("Profile", f"One step at batch {batch} after three to warm up; GB: operands and results, eager.")
    for name in options.configs or CONFIGS:
        config = read_config(find_config(name), options.set)
        accelerator = benchmark_accelerator(config, options.device)
        for form in check_forms(options.forms):
            if not clock.allows(report, f"{name}, {form}"):
                break
            try:
                work = make_workload(config, form, batch, accelerator)
            except ConfigError as error:  # no compilation with this torch
                report.verdict.append(f"{name}, {form}: {error}")
                continue
            for _ in range(3):
                work()
            counted = CountBytes()
            if form != "compiled":
                with counted:
                    work()
            _report(report, f"{name}, {form}", profile_kernels(work, options.device), counted.bytes)
    return report


def _report(report: Report, title: str, kernels: list[tuple[str, int, float]], moved: Counter[str]) -> None:
    launches: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    for name, count, taken in kernels:
        launches[kind_of(name)] += count
        seconds[kind_of(name)] = seconds.get(kind_of(name), 0.0) + taken
    total = sum(seconds.values()) or float("nan")
    rows: list[list[object]] = []
    for kind, taken in sorted(seconds.items(), key=lambda item: -item[1]):
        gigabytes = moved[kind] / 1e9 if kind in moved and kind not in COMPUTING else None
        rate = gigabytes / taken if gigabytes and taken else None
        rows.append([kind, launches[kind], 1e3 * taken, f"{taken / total:.1%}", gigabytes, rate])
    rows.append(["all", launches.total(), 1e3 * total, "", sum(moved.values()) / 1e9 if moved else None, None])
    report.tables.append(Table(["kind", "launches", "ms", "share", "GB", "GB/s"], rows, title))
    longest = [[name[:100].replace("|", "/"), count, 1e3 * taken] for name, count, taken in kernels[:LONGEST]]
    report.tables.append(Table(["kernel", "launches", "ms"], longest, f"{title}: the longest kernels"))
    report.figures[title] = {"launches": launches, "seconds": seconds, "bytes": moved, "kernels": kernels[:100]}
