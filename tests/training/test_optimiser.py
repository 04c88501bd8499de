"""Test Adam's two placements of epsilon against their formulas in NumPy."""

import copy
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from hamgan.config import TrainConfig
from hamgan.training.optimiser import TensorFlowAdam, make_adam

Placement = Literal["torch", "tensorflow"]
LR, BETA1, BETA2, EPS = 4e-3, 0.5, 0.999, 1e-3  # an epsilon that matters


def gradients(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(7)
    return [random.normal(size=(3, 4)) * 0.01 for _ in range(count)]


def by_formula(start: np.ndarray, steps: list[np.ndarray], placement: str) -> np.ndarray:
    """Apply Kingma & Ba's update; TensorFlow adds epsilon to sqrt(v) before the bias correction, PyTorch after it."""
    parameter, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for t, gradient in enumerate(steps, start=1):
        m = BETA1 * m + (1 - BETA1) * gradient
        v = BETA2 * v + (1 - BETA2) * gradient**2
        if placement == "tensorflow":
            rate = LR * np.sqrt(1 - BETA2**t) / (1 - BETA1**t)
            parameter -= rate * m / (np.sqrt(v) + EPS)
        else:
            parameter -= LR * (m / (1 - BETA1**t)) / (np.sqrt(v / (1 - BETA2**t)) + EPS)
    return parameter


def network() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(4, 3, bias=False).double()


def adam(layer: nn.Linear, placement: Placement) -> torch.optim.Adam:
    train = TrainConfig(beta1=BETA1, beta2=BETA2, adam_eps=EPS, adam_eps_placement=placement)
    return make_adam(layer, train, LR)


def take(layer: nn.Linear, optimiser: torch.optim.Adam, steps: list[np.ndarray]) -> None:
    for gradient in steps:
        layer.weight.grad = torch.from_numpy(gradient)
        optimiser.step()


@pytest.mark.parametrize("placement", ["torch", "tensorflow"])
def test_updates_equal_the_formula(placement: Placement) -> None:
    layer, steps = network(), gradients(6)
    start = layer.weight.detach().numpy().copy()
    take(layer, adam(layer, placement), steps)
    expected = by_formula(start, steps, placement)
    assert np.abs(layer.weight.detach().numpy() - expected).max() < 1e-14
    other = by_formula(start, steps, "torch" if placement == "tensorflow" else "tensorflow")
    assert np.abs(layer.weight.detach().numpy() - other).max() > 1e-4


def test_a_restored_state_continues_the_count() -> None:
    layer, steps = network(), gradients(6)
    start = layer.weight.detach().numpy().copy()
    first = adam(layer, "tensorflow")
    take(layer, first, steps[:4])
    kept = copy.deepcopy(first.state[layer.weight])
    weight = layer.weight.detach().clone()
    take(layer, first, steps[4:])
    expected = by_formula(start, steps, "tensorflow")
    # Going back on the same optimiser, as after a collapse, and into a fresh one, as after a restart.
    for optimiser in (first, adam(layer, "tensorflow")):
        assert isinstance(optimiser, TensorFlowAdam)
        with torch.no_grad():
            layer.weight.copy_(weight)
        optimiser.state[layer.weight] = copy.deepcopy(kept)  # as checkpoints restore it
        take(layer, optimiser, steps[4:])
        assert np.abs(layer.weight.detach().numpy() - expected).max() < 1e-14
