"""Describe the machine that a program runs on, and set how it keeps freed memory."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# malloc.h: what mallopt() sets, and the largest threshold that it takes on 64 bits.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_THRESHOLD = 32 << 20
PACKAGES = ("hamgan", "torch", "torchvision", "accelerate", "torch-fidelity", "numpy", "pillow")


def describe_machine() -> dict[str, Any]:
    """Return processor, cores that this process may use, threads, GPUs, versions; ``summary`` is one line of it."""
    import torch  # which `--help` should not wait for

    cores = usable_cores()
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    processor = _processor()
    summary = f"{cores}-core {processor}, {', '.join(gpus) or 'no GPU'}, torch {torch.__version__}"
    return {
        "summary": summary,
        "processor": processor,
        "cores": cores,
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def usable_cores() -> int:
    """Return the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hamgan_version() -> str:
    """Return the version of this package, ``0+unknown`` for a checkout on the path that is not installed."""
    return package_versions(("hamgan",)).get("hamgan", "0+unknown")


def package_versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of packages, by default of those that a run's numbers depend on; without what is not here."""
    from importlib.metadata import PackageNotFoundError, version  # a fifth of a second before the first line

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor_flags() -> set[str]:
    """Return the instruction sets of the processor by Linux's names, such as ``avx512f``; empty elsewhere."""
    return set(_processor_facts().get("flags", "").split())


def _processor_facts() -> dict[str, str]:
    """Return what Linux says of the first core; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    text = info.read_text().split("\n\n")[0] if info.is_file() else ""
    lines = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in lines}


def _processor() -> str:
    """Return the processor's name, with its vector instructions where a virtual machine hides the model."""
    name = _processor_facts().get("model name") or platform.processor() or platform.machine()
    vector = next((name for flag, name in (("avx512f", "avx512"), ("avx2", "avx2")) if flag in processor_flags()), "")
    return f"{name} ({vector})" if vector else name


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


def let_waiting_threads_sleep() -> None:
    """Have OpenMP's threads sleep where they wait for each other; without effect once torch is imported.

    By default they spin, and where a program beside takes one of two cores, that keeps the core from the thread that
    the others wait for: two threads trained the demo's networks at 2 to 4 images/s, and asleep at 20 to 37.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def free_memory(device: "torch.device") -> int | None:
    """Return the bytes that a new tensor could take on a GPU or on the CPU; None where the system does not say."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    info = Path("/proc/meminfo")
    if device.type != "cpu" or not info.is_file():
        return None
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024
