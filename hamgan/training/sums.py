"""Add metrics up on the device between two rows of the log, and average them over all processes."""

import torch
from accelerate import Accelerator
from torch import Tensor


class MetricSums:
    """Sum metrics by name on the device, since reading them on the host in every step would stall the GPU."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, **values: Tensor) -> None:
        """Add one value per name."""
        for name, value in values.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, Tensor]:
        """Return the means since the last call, over all processes, as tensors on the device."""
        if not self.sums:
            return {}
        names = sorted(self.sums)
        means = torch.stack([self.sums[name] / self.counts[name] for name in names])
        means = self.accelerator.reduce(means, reduction="mean")
        self.sums, self.counts = {}, {}
        return dict(zip(names, means, strict=True))

    def share(self) -> None:
        """Average the sums over all processes, for a checkpoint written by one of them."""
        if self.sums and self.accelerator.num_processes > 1:
            names = sorted(self.sums)
            means = self.accelerator.reduce(torch.stack([self.sums[name] for name in names]), reduction="mean")
            self.sums = dict(zip(names, means, strict=True))

    def state(self) -> dict[str, Tensor]:
        """Return sums and counts, for a checkpoint."""
        tensors = {f"sums.{name}": value for name, value in self.sums.items()}
        return tensors | {f"counts.{name}": torch.tensor(count) for name, count in self.counts.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore the sums of `state` from all tensors of a checkpoint."""
        names = [name.removeprefix("sums.") for name in tensors if name.startswith("sums.")]
        self.sums = {name: tensors[f"sums.{name}"].to(self.accelerator.device) for name in names}
        self.counts = {name: int(tensors[f"counts.{name}"]) for name in names}
