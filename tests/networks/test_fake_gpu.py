"""Test what networks do on a GPU, on CUDA tensors without data: types and operators, no values."""

import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.batch_norm_kernels import plain_gpu_kernels
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import hamgan
from hamgan.config import NormConfig, SpectralNormConfig, load_config
from hamgan.networks import build_networks
from hamgan.networks.attention import SelfAttention
from hamgan.networks.batch_norm import PerClassBatchNorm
from hamgan.networks.blocks import GeneratorBlock
from hamgan.networks.spectral_norm import SpectralConv2d, effective_weights

# Where there is no driver, a torch without CUDA or before `_ensureCUDADeviceGuardSet` ends the process at the first
# autograd function of such tensors.
NO_FAKE_GPU = not torch.cuda.is_available() and (
    torch.version.cuda is None or not hasattr(torch._C, "_ensureCUDADeviceGuardSet")
)
pytestmark = pytest.mark.skipif(NO_FAKE_GPU, reason="this torch makes such tensors only where there is a driver")


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
    """Check what such kernels ask for: half precision, features in multiples of 8, and no dimension of heads of size 1.

    torch.compile gives such a dimension a stride of 1, at which CUDA's kernel says that there is none to launch.
    """
    attention = SelfAttention(96, partial(SpectralConv2d, kernel=1, config=SpectralNormConfig(), bias=False))
    x = torch.empty(2, 96, 16, 16, dtype=torch.bfloat16)
    with AttentionInputs() as seen:
        y = attention(x)
    assert [(part.dtype, part.shape) for part in seen.inputs] == [
        (torch.bfloat16, (1, 2, 256, 16)),
        (torch.bfloat16, (1, 2, 64, 16)),
        (torch.bfloat16, (1, 2, 64, 48)),
    ]
    assert (y.dtype, y.shape) == (torch.bfloat16, x.shape)


PACKAGE = str(Path(hamgan.__file__).parent)
PLACE = "context_resolutions=[16]"
BATCH = 1024
LARGE = 2000 * BATCH
"""Feature maps of the networks below have more values, weights and what belongs to a class or a latent fewer."""


class Dispatched(TorchDispatchMode):
    """Keep the files that make large float32 tensors, and the calls that a GPU takes value by value."""

    def __init__(self) -> None:
        super().__init__()
        self.wide: set[str] = set()
        self.one_by_one: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [out for out in tree_leaves(result) if isinstance(out, Tensor)]
        if any(out.dtype == torch.float32 and out.numel() >= LARGE for out in made):
            names = (frame.filename for frame in reversed(traceback.extract_stack()))
            name = next(name for name in names if name.startswith(PACKAGE) or "/support/" in name)
            self.wide.add("/".join(name.rsplit("/", 2)[1:]))
        lists = [arg for arg in args if isinstance(arg, list) and arg and isinstance(arg[0], Tensor)]
        if "_foreach_" in str(func) and any([t.shape for t in other] != [t.shape for t in lists[0]] for other in lists):
            self.one_by_one.add(str(func))
        return result


@pytest.mark.parametrize("context", ["hamburger", "attention"])
@pytest.mark.parametrize("conditioning", ["shared", "per_class"])
def test_only_decompositions_make_large_float32_tensors_and_lists_are_taken_whole(
    context: str, conditioning: str, request: pytest.FixtureRequest
) -> None:
    sizes = ["resolution=32", "generator.channels=16", "discriminator.channels=16", "generator.latent_dim=20"]
    contexts = [f"{part}.{key}" for part in ("generator", "discriminator") for key in (f"context={context}", PLACE)]
    options = [
        *sizes,
        *contexts,
        "data.num_classes=5",
        f"generator.conditioning={conditioning}",
        "generator.hierarchical=false",
    ]
    request.getfixturevalue("autocast_on_a_fake_gpu")
    networks = build_networks(load_config(None, options))
    for module in (module for network in networks for module in network.modules()):
        if isinstance(module, SpectralConv2d) and module._taps is not None:
            module._taps = torch.empty(16, 9)  # as moving the network would, which such tensors refuse
    labels = torch.zeros(BATCH, dtype=torch.int64)
    with plain_gpu_kernels(), Dispatched() as seen:
        images = networks[0](torch.empty(BATCH, 20), labels)
        logits = networks[1](images, labels)
    # D sums its last, small map in float32. Where there is no device, torch takes the plain form of attention, and the
    # kernels of batch norm are stood in for.
    elsewhere = {name for name in seen.wide if not name.startswith("hamburger/")}
    assert elsewhere <= {"networks/discriminator.py", "networks/attention.py", "support/batch_norm_kernels.py"}
    assert not seen.one_by_one
    assert (images.dtype, logits.dtype) == (torch.bfloat16, torch.float32)
