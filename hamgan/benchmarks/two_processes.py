"""Two gloo processes on this machine: what their all-reduces cost, and whether the model's sum of them fits a step."""

import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator

from hamgan.benchmarks.report import Report, Table
from hamgan.benchmarks.scaling import Links, step_seconds, traffic
from hamgan.config import Config, load_config

SIZES = (2**12, 2**16, 2**20, 2**23)  # bytes
# Small enough that two processes fit two cores, large enough that a step outlasts its sums.
VALUES = ["resolution=32", "data.num_classes=10", "generator.channels=16", "discriminator.channels=16"]
VALUES += ["generator.context_resolutions=[16]", "discriminator.context_resolutions=[16]", "train.precision=fp32"]
BATCH = 16


def check(report: Report, rounds: int) -> None:
    """Add to the report: all-reduces by size, a line through them, and the step that the model makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_process, args=(folder, _free_port(), rounds), nprocs=2)
        found = torch.load(Path(folder) / "measured.pt", weights_only=True)
    links = fit(found["reduce"])
    predicted = step_seconds(found["apart"], traffic(load_config(None, VALUES)), links, 2, overlap=0.0)
    rows: list[list[object]] = [[size, 1e6 * taken, 1e6 * links.all_reduce(size, 2)] for size, taken in found["reduce"]]
    report.tables.append(Table(["bytes", "us", "us by the line"], rows, "All-reduce between two gloo processes"))
    error = predicted / found["together"] - 1
    report.verdict.append(
        f"Two gloo processes here, batch {BATCH} each: a step takes {1e3 * found['apart']:.1f} ms without sums and "
        f"{1e3 * found['together']:.1f} ms with them; the model says {1e3 * predicted:.1f} ms ({error:+.0%})."
    )
    report.figures["two_processes"] = {**found, "predicted": predicted}


def fit(measured: list[tuple[int, float]]) -> Links:
    """Latency and speed from the smallest and the largest all-reduce of two processes."""
    (small, low), (large, high) = measured[0], measured[-1]
    return Links((large - small) / max(high - low, 1e-9), float("inf"), low, 0.0)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def _process(rank: int, folder: str, port: int, rounds: int) -> None:
    """One of the two; the first writes what was measured."""

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": ""}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    buffers = [torch.zeros(size // 4) for size in SIZES]
    reduce = list(zip(SIZES, _medians([partial(dist.all_reduce, values) for values in buffers], rounds), strict=True))
    together, apart = _step_seconds(load_config(None, VALUES), accelerator, rounds)
    if rank == 0:
        torch.save({"reduce": reduce, "apart": apart, "together": together}, Path(folder) / "measured.pt")
    dist.destroy_process_group()


def _step_seconds(config: Config, accelerator: Accelerator, rounds: int) -> tuple[float, float]:
    """A step with its sums, and one of the same process without any, in turn."""
    from hamgan.benchmarks.steps import make_workload

    works = []
    for cross in (True, False):
        norm = replace(config.generator.norm, cross_replica=cross)
        changed = replace(config, generator=replace(config.generator, norm=norm))
        workload = make_workload(changed, "fast", BATCH, accelerator)
        if not cross:  # the networks themselves instead of their distributed wrappers
            step = workload.step
            step._generator, step._discriminator = step.generator, step.discriminator
        works.append(workload)
    together, apart = _medians(works, rounds)
    return together, apart


def _medians(works: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Wall seconds of each between two barriers, in turn; the first two rounds are not counted."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds + 2):
        for seconds, work in zip(taken, works, strict=True):
            dist.barrier()
            start = time.perf_counter()
            work()
            dist.barrier()
            seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds[2:]) for seconds in taken]
