"""Test what networks do on a GPU, on CUDA tensors without data: types and operators, no values."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.batch_norm_kernels import plain_gpu_kernels
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode

from hamgan.config import NormConfig, SpectralNormConfig
from hamgan.networks.attention import SelfAttention
from hamgan.networks.batch_norm import PerClassBatchNorm
from hamgan.networks.blocks import GeneratorBlock
from hamgan.networks.spectral_norm import SpectralConv2d, effective_weights


@pytest.fixture
def autocast_on_a_fake_gpu() -> Iterator[None]:
    """Make new tensors CUDA tensors without data, under an autocast to bf16 as on a real GPU."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        torch.set_autocast_enabled("cuda", True)  # torch.autocast switches itself off where there is no GPU
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            yield
        finally:
            torch.set_autocast_enabled("cuda", enabled)
            torch.set_autocast_dtype("cuda", dtype)


@pytest.mark.usefixtures("autocast_on_a_fake_gpu")
def test_feature_maps_stay_in_half_precision() -> None:
    """Check a block: CUDA's autocast keeps other operators in float32 than that of a CPU."""
    conv = partial(SpectralConv2d, config=SpectralNormConfig())
    block = GeneratorBlock(4, 4, conv, partial(PerClassBatchNorm, classes=3, norm=NormConfig()))
    block.conv1._taps = torch.empty(16, 9)  # as moving the block would, which such tensors refuse
    x = torch.empty(2, 4, 8, 8, dtype=torch.bfloat16)
    with plain_gpu_kernels():  # torch has no form of them for tensors without data
        y = block(x, torch.zeros(2, dtype=torch.int64), effective_weights(block))
    assert (y.dtype, y.shape) == (torch.bfloat16, (2, 4, 16, 16))


class AttentionInputs(TorchFunctionMode):
    """Keep queries, keys and values that `scaled_dot_product_attention` is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.inputs += args
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("autocast_on_a_fake_gpu")
def test_attention_takes_a_form_without_the_map_of_attention() -> None:
    """Check what such kernels ask for: half precision, features in multiples of 8."""
    attention = SelfAttention(96, partial(SpectralConv2d, kernel=1, config=SpectralNormConfig(), bias=False))
    x = torch.empty(2, 96, 16, 16, dtype=torch.bfloat16)
    with AttentionInputs() as seen:
        y = attention(x)
    assert [(part.dtype, part.shape[1:]) for part in seen.inputs] == [
        (torch.bfloat16, (1, 256, 16)),
        (torch.bfloat16, (1, 64, 16)),
        (torch.bfloat16, (1, 64, 48)),
    ]
    assert (y.dtype, y.shape) == (torch.bfloat16, x.shape)
