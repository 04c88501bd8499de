"""Read the numbers of a logged row from the device: means of the steps, singular values and gates of the networks."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from hamgan.networks import Discriminator, Generator
from hamgan.networks.spectral_norm import SpectralWeight

Metrics = Mapping[str, float | Mapping[str, float]]
"""Numbers of a row by name; ``sigmas`` is a number per layer."""


@torch.no_grad()
def top_singular_value(layer: SpectralWeight) -> Tensor:
    """Return the largest singular value of a weight, from its last forward pass or by power iteration."""
    if not layer.folded:
        return layer.get_buffer("sigma")
    matrix = layer.weight.flatten(1).float()
    # An arbitrary but fixed start, so that a resumed run reports the same.
    u = torch.arange(1.0, len(matrix) + 1, device=matrix.device).sin()
    for _ in range(10):
        v = F.normalize(matrix.mT @ u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
    return torch.dot(u, matrix @ v)


def read_metrics(means: dict[str, Tensor], generator: Generator, discriminator: Discriminator) -> Metrics:
    """Return ``means`` and the networks' own numbers as floats, reading from the device once.

    The latter are the largest and mean singular value of each network, the gate of every context block, and ``sigmas``
    by layer.
    """
    layers: dict[str, Tensor] = {}
    gates: dict[str, Tensor] = {}
    for letter, network in (("g", generator), ("d", discriminator)):
        for name, module in network.named_modules():
            if isinstance(module, SpectralWeight):
                layers[f"{letter}.{name}"] = top_singular_value(module)
        for size, context in network.contexts.items():
            gate = getattr(context, "gate", None)
            if gate is not None:  # v2+ has a learnt shortcut instead of one gate
                gates[f"{letter}_gate_{size}"] = gate.detach()
    found = means | gates | layers
    numbers: dict[str, float] = dict(zip(found, torch.stack([v.float() for v in found.values()]).tolist(), strict=True))
    sigmas = {name: numbers.pop(name) for name in layers}
    metrics: dict[str, float | Mapping[str, float]] = dict(numbers)
    for letter in "gd":
        own = [value for name, value in sigmas.items() if name.startswith(letter)]
        metrics[f"{letter}_sigma_max"], metrics[f"{letter}_sigma_mean"] = max(own), sum(own) / len(own)
    metrics["sigmas"] = {name: float(f"{value:.5g}") for name, value in sigmas.items()}
    return metrics
