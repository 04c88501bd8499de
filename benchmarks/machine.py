"""The machine that is measured: what it can do at most."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.timing import interleaved


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
