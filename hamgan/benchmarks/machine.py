"""The machine that is measured: its name and what it can do at most."""

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hamgan.benchmarks.timing import interleaved


def describe_machine() -> dict[str, Any]:
    """Processor, cores that this process may use, threads, GPUs, versions; ``summary`` is one line of it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
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


def _processor() -> str:
    """The processor's name; where a virtual machine hides the model, its instruction sets tell the generation."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    lines = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, value in lines.items()}
    vector = "avx512" if "avx512f" in values.get("flags", "") else "avx2" if "avx2" in values.get("flags", "") else ""
    name = values.get("model name", platform.machine())
    return f"{name} ({vector})" if vector else name


@dataclass(frozen=True)
class Ceilings:
    """The machine's measured limits: of a large matrix product in FLOP/s, of memory in bytes/s (read and written)."""

    matmul: float
    bandwidth: float
    dtype: str

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def measure_ceilings(device: torch.device, dtype: torch.dtype = torch.float32, rounds: int = 7) -> Ceilings:
    """Time a square matrix product and an addition in place that no cache holds; on one CPU thread in CPU time."""
    size, length = (1024, 2**26) if device.type == "cpu" else (8192, 2**29)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    values = torch.zeros(length, device=device)
    timings = interleaved(
        {"matmul": lambda: torch.mm(left, right, out=product), "memory": lambda: values.add_(1.0)},
        rounds,
        device=device,
    )
    moved = 2 * values.numel() * values.element_size()
    return Ceilings(2 * size**3 / timings.median("matmul"), moved / timings.median("memory"), str(dtype)[6:])
