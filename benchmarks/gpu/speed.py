"""Measure images per second, memory, the share of the card's arithmetic, and waits, by batch size and form."""

import argparse
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator

from benchmarks.gpu import Clock
from benchmarks.report import Report, Table
from benchmarks.steps import Form, benchmark_accelerator, make_workload, read_config
from benchmarks.timing import count_flops, measure_matmul, peak_memory, synchronise
from benchmarks.train import check_forms
from hamgan.config import Config
from hamgan.config.presets import find_config
from hamgan.errors import ConfigError

CONFIGS = ("hamgan_strong_imagenet128",)
BATCHES = (64, 128, 256, 512)
WARM_UP, STEPS = 3, 10
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def run(options: argparse.Namespace, clock: Clock) -> Report:
    """Measure every configuration at every batch size, the forms one after the other."""
    report = Report("Speed", f"Training steps on made-up images, {WARM_UP} to warm up and {STEPS} timed.")
    for name in options.configs or CONFIGS:
        config = read_config(find_config(name), options.set)
        accelerator = benchmark_accelerator(config, options.device)
        precision = accelerator.mixed_precision.replace("no", "fp32")
        ceiling = measure_matmul(options.device, DTYPES[precision])
        rows: list[list[object]] = []
        for form in check_forms(options.forms):
            for batch in options.batches or BATCHES:
                if not clock.allows(report, f"{name}, {form}, batch {batch}"):
                    break
                try:
                    found = measure_form(config, form, batch, accelerator, options.device)
                except (torch.OutOfMemoryError, ConfigError) as error:  # ConfigError: no compilation with this torch
                    reason = "out of memory" if isinstance(error, torch.OutOfMemoryError) else str(error)
                    rows.append([form, batch, reason, *[None] * 5])
                    break
                share = found["flops"] / found["seconds"] / ceiling if found["flops"] else None
                report.figures[f"{name} {form} {batch}"] = found | {"share": share}
                rows.append(_row(form, batch, found, share))
        columns = ["form", "batch", "images/s", "ms", "of it CPU dispatch", "GiB", "of a matrix product", "waits"]
        title = f"{name}, {precision}; a large matrix product reaches {ceiling / 1e12:.3g} TFLOP/s"
        report.tables.append(Table(columns, rows, title))
    return report


def _row(form: Form, batch: int, found: dict[str, float], share: float | None) -> list[object]:
    milliseconds, gib = 1e3 * found["seconds"], found["bytes"] / 2**30
    utilisation = f"{share:.1%}" if share else None
    speed, waits = batch / found["seconds"], int(found["waits"])
    return [form, batch, speed, milliseconds, 1e3 * found["cpu_seconds"], gib, utilisation, waits]


def measure_form(
    config: Config, form: Form, images: int, accelerator: Accelerator, device: torch.device
) -> dict[str, float]:
    """Return seconds and CPU seconds of a step, its peak bytes, its FLOPs (0: not counted) and its waits."""
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    work = make_workload(config, form, images, accelerator)
    for _ in range(WARM_UP):
        work()
    synchronise(device)
    started, dispatched = time.perf_counter(), 0.0
    for _ in range(STEPS):
        before = time.perf_counter()
        work()
        dispatched += time.perf_counter() - before
    synchronise(device)
    seconds = (time.perf_counter() - started) / STEPS
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        synchronise(device)
        memory = torch.cuda.max_memory_allocated(device)
    else:
        memory = peak_memory(work, device)
    with counted_waits(device) as waits:
        work()
    flops = count_flops(work) if form != "compiled" else 0
    found = {"seconds": seconds, "cpu_seconds": dispatched / STEPS, "bytes": memory, "flops": flops}
    return found | {"images_per_second": images / seconds, "waits": len(waits)}


@contextmanager
def counted_waits(device: torch.device) -> Iterator[list[warnings.WarningMessage]]:
    """Collect a warning for every call inside that makes the host wait for a GPU; none on a CPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            waits: list[warnings.WarningMessage] = []
            yield waits
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    waits += [warning for warning in caught if "called a synchronizing" in str(warning.message)]
