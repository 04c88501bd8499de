"""Threads that each run torch on one core."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier

import torch


@cache
def single_threaded_pool(threads: int) -> ThreadPoolExecutor:
    """A pool whose workers each use one core for torch's kernels.

    Two workers with a chunk each do twice the work of one, where two OpenMP threads on one chunk do 1.6 times as much.
    """
    # set_num_threads also sets what later threads start with: all workers start now, then the caller's count returns.
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    started = Barrier(threads)
    list(pool.map(lambda _: started.wait(), range(threads)))
    torch.set_num_threads(before)
    return pool
