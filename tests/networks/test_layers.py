"""Test batch norm over one and two processes, and attention."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from support.batch_norm_kernels import plain_gpu_kernels
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from hamgan.config import NormConfig, SpectralNormConfig
from hamgan.networks.attention import SelfAttention
from hamgan.networks.batch_norm import BatchNorm, PerClassBatchNorm
from hamgan.networks.spectral_norm import SpectralConv2d


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


def batch_norm_case(x: Tensor, gpu: bool = False) -> tuple[Tensor, Tensor, BatchNorm]:
    """Return the output, the gradient of a sum that couples all images, and the norm after it."""
    norm = BatchNorm(3, NormConfig(eps=1e-3)).double()
    x = x.clone().requires_grad_()
    gain, bias = torch.linspace(0.5, 2.0, 6, dtype=torch.float64).view(2, 3)
    y = norm._affine_on_gpu(x, gain, bias) if gpu else norm.affine(x, gain, bias)
    (y.sin() * x.detach()).sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad, norm


def norm_on_one_process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    x = torch.load(f"{folder}/x.pt", weights_only=True).chunk(2)[rank]
    with plain_gpu_kernels():
        on_gpu = batch_norm_case(x, gpu=True)
    y, gradient, norm = batch_norm_case(x)
    torch.testing.assert_close(on_gpu[:2], (y, gradient), rtol=0, atol=1e-12)
    torch.testing.assert_close(on_gpu[2].state_dict(), norm.state_dict(), rtol=0, atol=1e-12)
    far = BatchNorm(3, NormConfig(momentum=1.0))
    far.normalise(x.float() + 1000)
    torch.save({"y": y, "gradient": gradient, "far": far.running_var} | norm.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("shape", [(3,), (4, 3)])
@pytest.mark.parametrize("biased", [False, True])
def test_the_form_of_batch_norm_for_a_gpu_equals_that_for_a_cpu(biased: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    norm = BatchNorm(3, NormConfig(eps=1e-3, momentum=0.2, biased=biased)).double()
    other = copy.deepcopy(norm)
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64) * 3 + 1
    inputs = [part.requires_grad_() for part in (x, *torch.randn(2, *shape, dtype=torch.float64))]
    weights = torch.sin(torch.arange(x.numel(), dtype=torch.float64)).view(x.shape)
    with plain_gpu_kernels():
        outputs = norm.affine(*inputs), other._affine_on_gpu(*inputs)
        gradients = [torch.autograd.grad((y * weights).sum(), inputs) for y in outputs]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
    torch.testing.assert_close(norm.state_dict(), other.state_dict(), rtol=1e-6 if biased else 0, atol=1e-12)


@pytest.mark.slow
def test_batch_norm_over_two_processes_equals_one_on_the_whole_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64) * 2 + 1
    torch.save(x, tmp_path / "x.pt")
    spawn(norm_on_one_process, args=(str(tmp_path),), nprocs=2)
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
