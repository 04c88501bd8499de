"""The memory of tensors on the CPU."""

import ctypes
import os
import sys

# malloc.h: what mallopt() sets, and the largest threshold that it takes on 64 bits.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_THRESHOLD = 32 << 20


def keep_freed_memory() -> None:
    """Let glibc use freed memory again instead of giving it back to the system; elsewhere nothing changes.

    By default what a step frees goes back to the system, which clears every page of it again in the next step: a
    sixth of a training step at 32 px on one thread, a third on two. The process keeps its peak of memory until it
    ends. Own settings in the environment (``MALLOC_MMAP_THRESHOLD_``, ``GLIBC_TUNABLES``) are left alone.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
