"""Test spectral normalisation: layers, their gradients, merged convolutions."""

import copy
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.config import SpectralNormConfig
from hamgan.networks.resampling import Resample
from hamgan.networks.spectral_norm import (
    SpectralConv2d,
    SpectralEmbedding,
    SpectralLinear,
    SpectralWeight,
    effective_weights,
)

Vector = Literal["output", "input"]
SHAPES = [(5, 7), (6, 3, 3, 3), (4, 8, 1, 1), (3, 1, 3, 3), (1, 6)]


def spectral_weight(shape: tuple[int, ...], config: SpectralNormConfig, scale: float = 1.0) -> SpectralWeight:
    torch.manual_seed(3)
    layer = SpectralWeight(shape, config)
    nn.init.normal_(layer.weight, std=scale)
    return layer.double()


def autograd_form(layer: SpectralWeight) -> tuple[Tensor, Tensor]:
    """Return a leaf W and W / sigma in the textbook order (kernel [out, in*kh*kw]), no gradient through u and v."""
    weight = layer.weight.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    matrix = weight.flatten(1)
    stored = layer.vector.clone()
    with torch.no_grad():
        if layer.config.vector == "output":
            v = F.normalize(stored @ matrix, dim=0)
            u = F.normalize(matrix @ v, dim=0)
        else:
            if weight.dim() == 4:  # (kh, kw, in) to (in, kh, kw)
                stored = stored.view(*weight.shape[2:], weight.shape[1]).permute(2, 0, 1).flatten()
            u = F.normalize(matrix @ stored, dim=0)
            v = F.normalize(u @ matrix, dim=0)
    sigma = u @ matrix @ v
    return weight, weight / (torch.clamp(sigma, min=1.0) if layer.clamp else sigma)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("vector", ["output", "input"])
@pytest.mark.parametrize(("clamp", "scale"), [(False, 1.0), (True, 1.0), (True, 0.01)])
def test_spectral_norm_and_its_closed_gradient_equal_autograd(
    shape: tuple[int, ...], vector: Vector, clamp: bool, scale: float
) -> None:
    layer = spectral_weight(shape, SpectralNormConfig(vector=vector, clamp=clamp, eps=1e-12), scale)
    leaf, expected = autograd_form(layer)
    actual = layer.effective_weight()
    assert torch.allclose(actual, expected, rtol=0, atol=1e-12)
    weights = torch.sin(torch.arange(actual.numel(), dtype=torch.float64)).view(shape)
    (gradient,) = torch.autograd.grad((actual * weights).sum(), layer.weight)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), leaf)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


def layer_and_inputs(kind: str) -> tuple[SpectralLinear | SpectralConv2d, Tensor]:
    torch.manual_seed(0)
    kinds: dict[str, tuple[SpectralLinear | SpectralConv2d, tuple[int, ...]]] = {
        "linear": (SpectralLinear(5, 7, SpectralNormConfig()), (2, 5)),
        "conv": (SpectralConv2d(4, 6, 3, SpectralNormConfig(vector="input")), (1, 4, 5, 5)),
        "down, 1x1": (SpectralConv2d(4, 6, 1, SpectralNormConfig(), resample="down"), (1, 4, 4, 4)),
        "up, clamped": (SpectralConv2d(4, 6, 3, SpectralNormConfig(clamp=True), resample="up"), (1, 4, 4, 4)),
    }
    layer, shape = kinds[kind]
    layer = layer.double()
    assert layer.bias is not None
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer, torch.randn(shape, dtype=torch.float64, requires_grad=True)


def penalised(y: Tensor, x: Tensor) -> Tensor:
    """Return a loss with the squared gradient of x in it, as R1 has it."""
    weights = torch.sin(torch.arange(y.numel(), dtype=torch.float64)).view(y.shape)
    loss = (weights * y.tanh()).sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    return loss + gradient.square().sum()


@pytest.mark.parametrize("kind", ["linear", "conv", "down, 1x1", "up, clamped"])
def test_layers_and_both_of_their_gradients_equal_autograd(kind: str) -> None:
    layer, x = layer_and_inputs(kind)
    leaf, weight = autograd_form(layer)
    resample = getattr(layer, "resample", "none")
    if weight.dim() == 2:
        expected = F.linear(x, weight, layer.bias)
    else:
        small = F.interpolate(x, scale_factor=2, mode="nearest") if resample == "up" else x
        expected = F.conv2d(small, weight, layer.bias, padding=weight.shape[-1] // 2)
        expected = F.avg_pool2d(expected, 2) if resample == "down" else expected
    actual = layer(x)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)
    assert layer.bias is not None
    gradients = torch.autograd.grad(penalised(actual, x), [x, layer.weight, layer.bias])
    expected_gradients = torch.autograd.grad(penalised(expected, x), [x, leaf, layer.bias])
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("small", [True, False])
def test_weights_of_a_whole_network_equal_those_of_its_layers(small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hamgan.networks.spectral_norm.SMALL", 20 if small else 12)
    configs = SpectralNormConfig(clamp=False), SpectralNormConfig(clamp=True)
    layers: list[SpectralWeight] = [SpectralLinear(4, size, configs[size % 2], bias=False) for size in (4, 5, 3)]
    layers.append(SpectralWeight((3, 3), SpectralNormConfig(enabled=False)))
    for layer in layers:
        nn.init.normal_(layer.weight)
    apart = copy.deepcopy(layers)
    network = nn.Sequential(*layers)
    for _ in range(2):
        together = list(effective_weights(network).values())
        alone = [layer.effective_weight() for layer in apart]
        assert all(map(torch.equal, together, alone))
        gradients, expected = (
            torch.autograd.grad([weight.sin().sum() for weight in weights], [layer.weight for layer in owners])
            for weights, owners in ((together, layers), (alone, apart))
        )
        assert all(map(torch.equal, gradients, expected))
        states = network.state_dict(), nn.Sequential(*apart).state_dict()
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not torch.equal(alone[0], apart[0].effective_weight())  # each call moves the vectors


def test_a_layer_takes_the_weight_that_it_is_handed() -> None:
    layer = SpectralConv2d(2, 3, 3, SpectralNormConfig(), resample="down", bias=False)
    nn.init.normal_(layer.weight)
    before, x = layer.vector.clone(), torch.randn(1, 2, 4, 4)
    handed = torch.randn(3, 2, 3, 3)
    expected = F.avg_pool2d(F.conv2d(x, handed, padding=1), 2)
    torch.testing.assert_close(layer(x, {layer: handed}), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(layer.vector, before)


@pytest.mark.parametrize("resample", ["up", "down"])
def test_a_weight_without_normalisation_is_followed_where_no_gradient_is_wanted(resample: Resample) -> None:
    conv = SpectralConv2d(2, 3, 3, SpectralNormConfig(enabled=False), resample=resample)
    assert conv.bias is not None
    nn.init.normal_(conv.weight)
    nn.init.zeros_(conv.bias)
    with torch.no_grad():
        before = conv(torch.ones(1, 2, 4, 4))
        conv.weight.mul_(2)
        assert torch.equal(conv(torch.ones(1, 2, 4, 4)), 2 * before)


@pytest.mark.parametrize("vector", ["output", "input"])
def test_sigma_converges_to_the_largest_singular_value(vector: Vector) -> None:
    layer = spectral_weight((6, 3, 3, 3), SpectralNormConfig(vector=vector))
    for _ in range(200):
        layer.effective_weight()
    largest = np.linalg.svd(layer.weight.detach().flatten(1).numpy(), compute_uv=False)[0]
    assert layer.sigma.item() == pytest.approx(largest, rel=1e-6)


def test_the_vector_moves_in_training_mode_only() -> None:
    layer = spectral_weight((5, 7), SpectralNormConfig())
    before = layer.vector.clone()
    evaluated = layer.eval().effective_weight()
    assert torch.equal(layer.vector, before)
    assert torch.equal(layer.train().effective_weight(), evaluated)
    assert not torch.equal(layer.vector, before)


def test_a_weight_without_normalisation_is_left_alone() -> None:
    layer = spectral_weight((5, 7), SpectralNormConfig(enabled=False))
    assert layer.effective_weight() is layer.weight
    assert "vector" not in layer.state_dict()


def test_a_zero_weight_stays_finite() -> None:
    layer = SpectralLinear(4, 3, SpectralNormConfig(clamp=True), bias=False)
    nn.init.zeros_(layer.weight)
    assert torch.equal(layer(torch.ones(2, 4)), torch.zeros(2, 3))


def test_embedding_rows_are_rows_of_the_normalised_table() -> None:
    table = SpectralEmbedding(4, 3, SpectralNormConfig()).double()
    nn.init.normal_(table.weight)
    table.eval()
    rows, expected = table(torch.tensor([2, 0])), table.effective_weight()[[2, 0]]
    assert torch.equal(rows, expected)
    gradients = [torch.autograd.grad(value.sin().sum(), table.weight)[0] for value in (rows, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("resample", ["none", "up", "down"])
def test_convolutions_with_resampling_equal_their_definition(kernel: int, resample: Resample) -> None:
    torch.manual_seed(0)
    conv = SpectralConv2d(3, 5, kernel, SpectralNormConfig(), resample=resample).double().eval()
    assert conv.bias is not None
    nn.init.normal_(conv.weight)
    nn.init.normal_(conv.bias)
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    small = F.interpolate(x, scale_factor=2, mode="nearest") if resample == "up" else x
    expected = F.conv2d(small, conv.effective_weight(), conv.bias, padding=kernel // 2)
    expected = F.avg_pool2d(expected, 2) if resample == "down" else expected
    assert torch.allclose(conv(x), expected, rtol=0, atol=1e-12)
