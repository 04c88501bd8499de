"""Make Adam as PyTorch or as TensorFlow computes it."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from hamgan.config import TrainConfig


class TensorFlowAdam(torch.optim.Adam):
    """Run Adam with epsilon outside the bias correction: ``p -= lr_t * m / (sqrt(v) + eps)``.

    Here ``lr_t = lr sqrt(1 - beta2^t) / (1 - beta1^t)`` (TensorFlow 1, tf.compat.v1.train.AdamOptimizer). This equals
    torch's form with the epsilon ``eps / sqrt(1 - beta2^t)``, so torch's fused kernel is used.
    """

    def __init__(self, params: Any, *, eps: float = 1e-8, **kwargs: Any) -> None:
        super().__init__(params, eps=eps, **kwargs)
        self._eps = eps
        self._steps = 0
        self._counter: Tensor | None = None

    def _current_counter(self) -> Tensor | None:
        return next((state["step"] for state in self.state.values() if "step" in state), None)

    def step(self, closure: Any = None) -> Any:
        """Update all parameters once."""
        counter = self._current_counter()
        if counter is not None and counter is not self._counter:  # restored; read it once, because it is on the device
            self._steps = int(counter)
        self._steps += 1
        for group in self.param_groups:
            group["eps"] = self._eps / math.sqrt(1.0 - group["betas"][1] ** self._steps)
        loss = super().step(closure)
        self._counter = self._current_counter()
        return loss


def make_adam(network: nn.Module, train: TrainConfig, lr: float, fused: bool | None = True) -> torch.optim.Adam:
    """Make an Adam for a network with the configured placement of epsilon; ``fused`` None is torch's default."""
    kind = TensorFlowAdam if train.adam_eps_placement == "tensorflow" else torch.optim.Adam
    betas = (float(train.beta1), float(train.beta2))  # torch refuses an int next to a float
    return kind(network.parameters(), lr=lr, betas=betas, eps=train.adam_eps, fused=fused)
