"""Describe the machine, and set process-wide options of memory and threads."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# malloc.h: parameters of mallopt(), and its largest threshold on 64 bits.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_THRESHOLD = 32 << 20
PACKAGES = ("hamgan", "torch", "torchvision", "accelerate", "torch-fidelity", "numpy", "pillow")


def describe_machine() -> dict[str, Any]:
    """Return processor, usable cores, threads, GPUs and versions; ``summary`` is one line."""
    import torch  # imported here, so that `--help` does not wait for it

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
    """Return the version of this package, ``0+unknown`` for a checkout that is not installed."""
    return package_versions(("hamgan",)).get("hamgan", "0+unknown")


def package_versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of the packages that are installed, by default of those that a run's numbers depend on."""
    from importlib.metadata import PackageNotFoundError, version  # takes a fifth of a second

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
    """Return the entries of /proc/cpuinfo for the first core; empty except on Linux."""
    info = Path("/proc/cpuinfo")
    text = info.read_text().split("\n\n")[0] if info.is_file() else ""
    lines = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in lines}


def _processor() -> str:
    """Return the processor's name, with its vector instructions if a virtual machine hides the model."""
    name = _processor_facts().get("model name") or platform.processor() or platform.machine()
    vector = next((name for flag, name in (("avx512f", "avx512"), ("avx2", "avx2")) if flag in processor_flags()), "")
    return f"{name} ({vector})" if vector else name


def keep_freed_memory() -> None:
    """Make glibc reuse freed memory instead of returning it to the system; does nothing elsewhere.

    By default memory freed in a step is returned, and the system clears its pages again in the next step: a sixth of a
    training step at 32 px on one thread, a third on two. The process then keeps its peak memory until it ends. Settings
    in the environment (``MALLOC_MMAP_THRESHOLD_``, ``GLIBC_TUNABLES``) are respected.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def let_waiting_threads_sleep() -> None:
    """Make OpenMP's threads sleep while they wait for each other; has no effect once torch is imported.

    By default they spin. If another program takes one of two cores, spinning keeps the other core from the thread that
    the others wait for: two threads trained the demo's networks at 2 to 4 images/s, and at 20 to 37 with sleeping.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def free_memory(device: "torch.device") -> int | None:
    """Return the bytes of free memory on a GPU or the CPU; None if the system does not report it."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    info = Path("/proc/meminfo")
    if device.type != "cpu" or not info.is_file():
        return None
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024
