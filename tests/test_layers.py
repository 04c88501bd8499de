"""Spectral normalisation, batch norm over one and two processes, attention."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.config import NormConfig, SpectralNormConfig
from hamgan.layers import BatchNorm, PerClassBatchNorm, SelfAttention
from hamgan.spectral import SpectralConv2d, SpectralEmbedding, SpectralLinear, SpectralWeight

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


def test_embedding_rows_are_rows_of_the_normalised_table() -> None:
    table = SpectralEmbedding(4, 3, SpectralNormConfig()).double()
    nn.init.normal_(table.weight)
    table.eval()
    assert torch.equal(table(torch.tensor([2, 0])), table.effective_weight()[[2, 0]])


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


@pytest.mark.parametrize("biased", [False, True])
def test_batch_norm_moments_and_what_is_stored(biased: bool) -> None:
    norm = BatchNorm(3, NormConfig(eps=1e-3, momentum=0.2, biased=biased)).double()
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64) * 3 + 1
    y = norm.normalise(x)
    var, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    expected = (x - mean[:, None, None]) / (var[:, None, None] + 1e-3).sqrt()
    assert torch.allclose(y, expected, atol=1e-10)
    stored = var if biased else var * 100 / 99
    assert torch.allclose(norm.running_var, 0.8 + 0.2 * stored, atol=1e-12)
    assert torch.allclose(norm.running_mean, 0.2 * mean, atol=1e-12)


def test_batch_norm_in_evaluation_mode_uses_the_stored_moments() -> None:
    norm = PerClassBatchNorm(3, 4, NormConfig(eps=1e-3)).double().eval()
    for tensor in (norm.gamma, norm.beta, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    x, labels = torch.randn(2, 3, 5, 5, dtype=torch.float64), torch.tensor([3, 1])
    plain = (x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-3).sqrt()
    expected = plain * norm.gamma[labels][..., None, None] + norm.beta[labels][..., None, None]
    assert torch.allclose(norm(x, labels), expected, atol=1e-12)


def batch_norm_case(x: Tensor) -> tuple[Tensor, Tensor, BatchNorm]:
    """Output, gradient of a sum that couples all images, and the norm after it."""
    norm = BatchNorm(3, NormConfig(eps=1e-3)).double()
    x = x.clone().requires_grad_()
    y = norm.normalise(x)
    (y.sin() * x.detach()).sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad, norm


def norm_on_one_process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    x = torch.load(f"{folder}/x.pt", weights_only=True).chunk(2)[rank]
    y, gradient, norm = batch_norm_case(x)
    far = BatchNorm(3, NormConfig(momentum=1.0))
    far.normalise(x.float() + 1000)
    torch.save({"y": y, "gradient": gradient, "far": far.running_var} | norm.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_batch_norm_over_two_processes_equals_one_on_the_whole_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64) * 2 + 1
    torch.save(x, tmp_path / "x.pt")
    torch.multiprocessing.spawn(norm_on_one_process, args=(str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    y, gradient, norm = batch_norm_case(x)
    assert torch.allclose(torch.cat([part["y"] for part in parts]), y, atol=1e-12)
    assert torch.allclose(torch.cat([part["gradient"] for part in parts]), gradient, atol=1e-12)
    for part in parts:
        for name, value in norm.state_dict().items():
            assert torch.allclose(part[name], value, atol=1e-12)
        variance = (x.float() + 1000).double().var((0, 2, 3))
        assert torch.allclose(part["far"].double(), variance, rtol=1e-5)


@torch.no_grad()
def test_attention_equals_its_definition_pixel_by_pixel() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(8, lambda i, o: SpectralConv2d(i, o, 1, SpectralNormConfig(), bias=False)).double().eval()
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(1, 8, 4, 4, dtype=torch.float64)
    query = attention.query(x)[0].flatten(1)
    key = F.max_pool2d(attention.key(x), 2)[0].flatten(1)
    value = F.max_pool2d(attention.value(x), 2)[0].flatten(1)
    mixed = torch.zeros(4, 16, dtype=torch.float64)
    for pixel in range(16):
        scores = [math.exp(float(query[:, pixel] @ key[:, other])) for other in range(4)]
        mixed[:, pixel] = sum(score / sum(scores) * value[:, other] for other, score in enumerate(scores))
    expected = x + attention.gate * attention.output(mixed.view(1, 4, 4, 4))
    assert torch.allclose(attention(x), expected, atol=1e-12)
