"""Count the cores of this process, and share work out among threads that each run torch on one of them."""

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

from hamgan.machine import usable_cores

Part = TypeVar("Part")
Result = TypeVar("Result")


def core_count() -> int:
    """Return the cores that this process may keep busy: ``OMP_NUM_THREADS``, else its share of those it may run on."""
    if (given := os.environ.get("OMP_NUM_THREADS", "")).isdecimal() and int(given) > 0:
        return int(given)
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def map_on_cores(threads: int, work: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """Return ``work`` of every part, in order, done by threads that each use one core for torch's kernels.

    Two threads with a part each do twice the work of one, where two OpenMP threads on one part do 1.6 times as much.
    """
    if threads == 1:
        return list(map(work, parts))
    return list(_workers(threads).map(work, parts))


@functools.cache
def _workers(threads: int) -> ThreadPoolExecutor:
    """Return threads that are kept for the next call: new ones cost a sixth of the time of eight images at 128 px."""
    return one_core_threads(threads)


def one_core_threads(threads: int) -> ThreadPoolExecutor:
    """Start threads in which torch's kernels use one core each."""
    # set_num_threads also sets what later threads start with: all workers start now, then the caller's count returns.
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=_use_one_core)
    started = Barrier(threads)
    list(pool.map(lambda _: started.wait(), range(threads)))
    torch.set_num_threads(before)
    return pool


os.register_at_fork(after_in_child=_workers.cache_clear)  # which has none of the threads


def _use_one_core() -> None:
    # Without this, every worker has OpenMP threads of its own. With more of them than cores OpenMP's threads sleep at
    # every barrier, the caller's too: training went at half its speed after the first sample sheet.
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread takes over the process's count at its first look, and keeps it
