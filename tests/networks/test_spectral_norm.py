"""Spectral normalisation: layers, their gradients, merged convolutions."""

import copy

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
    normalise_together,
    spectral_products,
)

SHAPES = [(5, 7), (6, 3, 3, 3), (4, 8, 1, 1), (3, 1, 3, 3), (1, 6)]


def spectral_weight(shape: tuple[int, ...], config: SpectralNormConfig, scale: float = 1.0) -> SpectralWeight:
    torch.manual_seed(3)
    layer = SpectralWeight(shape, config)
    nn.init.normal_(layer.weight, std=scale)
    return layer.double()


def autograd_form(layer: SpectralWeight) -> Tensor:
    """W / sigma in the textbook order (kernel as [out, in*kh*kw]), u and v detached, gradient through W in sigma."""
    weight = layer.weight.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    matrix = weight.flatten(1)
    stored = layer.get_buffer("vector").clone()
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
    layer.reference = weight
    return weight / (torch.clamp(sigma, min=1.0) if layer.clamp else sigma)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("vector", ["output", "input"])
@pytest.mark.parametrize(("clamp", "scale"), [(False, 1.0), (True, 1.0), (True, 0.01)])
def test_spectral_norm_and_its_closed_gradient_equal_autograd(
    shape: tuple[int, ...], vector: str, clamp: bool, scale: float
) -> None:
    layer = spectral_weight(shape, SpectralNormConfig(vector=vector, clamp=clamp, eps=1e-12), scale)
    expected = autograd_form(layer)
    actual = layer.effective_weight()
    assert torch.allclose(actual, expected, rtol=0, atol=1e-12)
    weights = torch.sin(torch.arange(actual.numel(), dtype=torch.float64)).view(shape)
    (gradient,) = torch.autograd.grad((actual * weights).sum(), layer.weight)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), layer.reference)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


def layer_and_inputs(kind: str) -> tuple[SpectralWeight, Tensor]:
    """A layer and its input; of a small input a layer with a large weight divides that, of a large one its weight."""
    torch.manual_seed(0)
    kinds: dict[str, tuple[SpectralWeight, tuple[int, ...]]] = {
        "linear, small": (SpectralLinear(5, 7, SpectralNormConfig()), (2, 5)),
        "linear, large": (SpectralLinear(5, 7, SpectralNormConfig()), (9, 5)),
        "conv, small": (SpectralConv2d(4, 6, 3, SpectralNormConfig(vector="input")), (1, 4, 5, 5)),
        "conv, large": (SpectralConv2d(4, 6, 3, SpectralNormConfig(vector="input")), (2, 4, 8, 8)),
        "down, small": (SpectralConv2d(4, 6, 1, SpectralNormConfig(), resample="down"), (1, 4, 4, 4)),
        "up, clamped": (SpectralConv2d(4, 6, 3, SpectralNormConfig(clamp=True), resample="up"), (1, 4, 4, 4)),
    }
    layer, shape = kinds[kind]
    layer = layer.double()
    layer.grouped = False
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer, torch.randn(shape, dtype=torch.float64, requires_grad=True)


def penalised(y: Tensor, x: Tensor) -> Tensor:
    """A loss with the squared gradient of x in it, as R1 has it."""
    weights = torch.sin(torch.arange(y.numel(), dtype=torch.float64)).view(y.shape)
    loss = (weights * y.tanh()).sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    return loss + gradient.square().sum()


@pytest.mark.parametrize(
    "kind", ["linear, small", "linear, large", "conv, small", "conv, large", "down, small", "up, clamped"]
)
def test_layers_and_both_of_their_gradients_equal_autograd(kind: str) -> None:
    layer, x = layer_and_inputs(kind)
    weight = autograd_form(layer)
    resample = getattr(layer, "resample", "none")
    if weight.dim() == 2:
        expected = F.linear(x, weight, layer.bias)
    else:
        small = F.interpolate(x, scale_factor=2, mode="nearest") if resample == "up" else x
        expected = F.conv2d(small, weight, layer.bias, padding=weight.shape[-1] // 2)
        expected = F.avg_pool2d(expected, 2) if resample == "down" else expected
    actual = layer(x)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)
    gradients = torch.autograd.grad(penalised(actual, x), [x, layer.weight, layer.bias])
    expected_gradients = torch.autograd.grad(penalised(expected, x), [x, layer.reference, layer.bias])
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("vector", ["output", "input"])
def test_products_of_several_layers_and_their_gradients_equal_autograd(vector: str) -> None:
    torch.manual_seed(0)
    layers = [
        SpectralLinear(4, outputs, SpectralNormConfig(vector=vector, clamp=clamp), bias=False).double()
        for outputs, clamp in [(3, False), (5, False), (6, True), (2, True)]
    ]
    for layer, scale in zip(layers, [1.0, 2.0, 3.0, 0.01], strict=True):
        nn.init.normal_(layer.weight, std=scale)
    x, indices = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True), [0, 1, 1, 1]
    weights = [autograd_form(layer) for layer in layers]
    expected = [F.linear(x[index], weight) for index, weight in zip(indices, weights, strict=True)]
    actual = spectral_products(layers, x, indices)
    torch.testing.assert_close(list(actual), expected, rtol=0, atol=1e-12)
    loss, expected_loss = (torch.cat(list(ys), dim=1).sin().square().sum() for ys in (actual, expected))
    gradients = torch.autograd.grad(loss, [x, *(layer.weight for layer in layers)])
    expected_gradients = torch.autograd.grad(expected_loss, [x, *(layer.reference for layer in layers)])
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-10, atol=1e-10)


def test_iterations_of_a_whole_network_equal_those_of_its_layers_and_are_used_once() -> None:
    network = nn.Sequential(*[SpectralLinear(4, 4, SpectralNormConfig(clamp=clamp)) for clamp in (False, True)])
    network.insert(1, SpectralLinear(4, 4, SpectralNormConfig()))
    network[1].grouped = False
    for layer in network:
        nn.init.normal_(layer.weight)
    apart = copy.deepcopy(network)
    for _ in range(2):
        normalise_together(network)
        x = torch.ones(2, 4)
        y, expected = network(x), apart(x)
        assert torch.equal(y, expected)
        gradients = torch.autograd.grad(y.sin().sum(), list(network.parameters()))
        assert all(map(torch.equal, gradients, torch.autograd.grad(expected.sin().sum(), list(apart.parameters()))))
        assert all(torch.equal(value, apart.state_dict()[name]) for name, value in network.state_dict().items())
    assert not torch.equal(network(x), network(x))  # each call moves the vectors


@pytest.mark.parametrize("resample", ["up", "down"])
def test_a_weight_without_normalisation_is_followed_where_no_gradient_is_wanted(resample: Resample) -> None:
    conv = SpectralConv2d(2, 3, 3, SpectralNormConfig(enabled=False), resample=resample)
    nn.init.normal_(conv.weight)
    nn.init.zeros_(conv.bias)
    with torch.no_grad():
        before = conv(torch.ones(1, 2, 4, 4))
        conv.weight.mul_(2)
        assert torch.equal(conv(torch.ones(1, 2, 4, 4)), 2 * before)


@pytest.mark.parametrize("vector", ["output", "input"])
def test_sigma_converges_to_the_largest_singular_value(vector: str) -> None:
    layer = spectral_weight((6, 3, 3, 3), SpectralNormConfig(vector=vector))
    for _ in range(200):
        layer.effective_weight()
    largest = np.linalg.svd(layer.weight.detach().flatten(1).numpy(), compute_uv=False)[0]
    assert layer.get_buffer("sigma").item() == pytest.approx(largest, rel=1e-6)


def test_the_vector_moves_in_training_mode_only() -> None:
    layer = spectral_weight((5, 7), SpectralNormConfig())
    before = layer.get_buffer("vector").clone()
    evaluated = layer.eval().effective_weight()
    assert torch.equal(layer.get_buffer("vector"), before)
    assert torch.equal(layer.train().effective_weight(), evaluated)
    assert not torch.equal(layer.get_buffer("vector"), before)


def test_a_weight_without_normalisation_is_left_alone() -> None:
    layer = spectral_weight((5, 7), SpectralNormConfig(enabled=False))
    assert layer.effective_weight() is layer.weight
    assert "vector" not in layer.state_dict()


def test_a_zero_weight_stays_finite() -> None:
    layer = SpectralLinear(4, 3, SpectralNormConfig(clamp=True), bias=False)
    nn.init.zeros_(layer.weight)
    assert torch.equal(layer(torch.ones(2, 4)), torch.zeros(2, 3))


@pytest.mark.parametrize("small", [True, False])
def test_embedding_rows_are_rows_of_the_normalised_table(small: bool) -> None:
    table = SpectralEmbedding(4, 3, SpectralNormConfig()).double()
    nn.init.normal_(table.weight)
    table.eval()
    table.grouped = small  # a large table is not divided, its rows are
    rows, expected = table(torch.tensor([2, 0])), table.effective_weight()[[2, 0]]
    assert torch.equal(rows, expected)
    gradients = [torch.autograd.grad(value.sin().sum(), table.weight)[0] for value in (rows, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("resample", ["none", "up", "down"])
def test_convolutions_with_resampling_equal_their_definition(kernel: int, resample: str) -> None:
    torch.manual_seed(0)
    conv = SpectralConv2d(3, 5, kernel, SpectralNormConfig(), resample=resample).double().eval()
    nn.init.normal_(conv.weight)
    nn.init.normal_(conv.bias)
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    small = F.interpolate(x, scale_factor=2, mode="nearest") if resample == "up" else x
    expected = F.conv2d(small, conv.effective_weight(), conv.bias, padding=kernel // 2)
    expected = F.avg_pool2d(expected, 2) if resample == "down" else expected
    assert torch.allclose(conv(x), expected, rtol=0, atol=1e-12)
