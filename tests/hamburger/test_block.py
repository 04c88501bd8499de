"""Test properties of the Hamburger block that training needs; test_golden.py has its recorded numbers."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from support.decompositions import DECOMPOSITIONS, Decomposition, gradients, weights_like
from torch import Tensor, nn

from hamgan.config import HamburgerConfig
from hamgan.errors import ConfigError
from hamgan.hamburger import Bases, Hamburger, measured_reconstruction, reconstruction_error
from hamgan.hamburger.decompositions import Gradient, cd, nmf, nmf_step, vq
from hamgan.hamburger.ham import Ham

Version = Literal["v1", "v2"]


def spatial_block(
    config: HamburgerConfig, channels: int, dtype: torch.dtype = torch.float32, **options: Any
) -> Hamburger:
    """Build a block of plain convolutions with weights of useful size (the gate too)."""
    torch.manual_seed(0)
    block = Hamburger(channels, config, lambda a, b: nn.Conv2d(a, b, 1, bias=False), **options).to(dtype)
    if block.gate is not None:
        nn.init.constant_(block.gate, 0.7)
    return block


def one_tensor_of_bases(
    block: Hamburger, batch: int, height: int, width: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw bases for a block that is not dual."""
    bases = block.draw_bases(batch, height, width, generator=generator)
    assert isinstance(bases, Tensor)
    return bases


def tokens_reference(block: Hamburger, x: Tensor, bases: Bases) -> Tensor:
    """Compute the block without folding: every convolution applied to a full reconstruction, by public functions."""
    function: Callable[..., Tensor] = {"nmf": nmf, "vq": vq, "cd": cd}[block.config.decomposition]
    config = block.config
    latent: Tensor = block.lower_bread(x)
    heads = config.heads

    def spatial(z: Tensor, bases: Tensor) -> Tensor:
        columns = z.reshape(len(z) * heads, -1, z.shape[2] * z.shape[3])
        return function(columns, bases, config.steps, config.gradient).reshape(z.shape)

    def channel(z: Tensor, bases: Tensor) -> Tensor:
        columns = z.reshape(len(z) * heads, -1, z.shape[2] * z.shape[3]).mT
        return function(columns, bases, config.steps, config.gradient).mT.reshape(z.shape)

    y: Tensor
    if isinstance(bases, tuple):
        halves = latent.chunk(2, dim=1)
        y = torch.cat([spatial(halves[0], bases[0]), channel(halves[1], bases[1])], dim=1)
    else:
        y = spatial(latent, bases) if config.mode == "spatial" else channel(latent, bases)
    if block.cheese is not None:
        y = block.cheese(y)
        y = torch.relu(block.norm(y) if block.norm else y)
        y = block.upper_bread(y)
    else:
        y = block.upper_bread(y)
        y = block.norm(y) if block.norm else y
    y = y * block.gate if block.gate is not None else y
    return y + x * (block.shortcut if block.shortcut is not None else 1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm", [None, nn.BatchNorm2d])
@pytest.mark.parametrize("decomposition", DECOMPOSITIONS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heads": 2},
        {"mode": "channel"},
        {"gradient": "unrolled", "steps": 2},
        {"version": "v2", "cheese_factor": 2},
        {"version": "v2+", "dual": True},
        {"rank": 40},
    ],
    ids=str,
)
def test_folding_the_convolutions_changes_nothing(
    options: dict[str, Any],
    decomposition: Decomposition,
    norm: Callable[[int], nn.Module] | None,
    layout: torch.memory_format,
) -> None:
    config = HamburgerConfig(**{"decomposition": decomposition, "rank": 3, "temperature": None} | options)
    block = spatial_block(config, 8, torch.float64, norm=norm)
    x = torch.randn(2, 8, 5, 4, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    bases = block.draw_bases(2, 5, 4, generator=torch.Generator().manual_seed(1))
    bases = (bases[0].double(), bases[1].double()) if isinstance(bases, tuple) else bases.double()
    inputs = [x, *block.parameters()]
    folded, plain = block(x, bases=bases), tokens_reference(block, x, bases)
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-10)
    for actual, expected in zip(gradients(folded, inputs), gradients(plain, inputs), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("gradient", ["one_step", "unrolled"])
@pytest.mark.parametrize("decomposition", DECOMPOSITIONS)
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("content", ["zero", "constant", "huge", "tiny", "one token"])
def test_extreme_inputs_stay_finite(
    content: str, autocast: torch.dtype | None, decomposition: Decomposition, gradient: Gradient
) -> None:
    block = spatial_block(HamburgerConfig(decomposition=decomposition, rank=4, gradient=gradient), 16)
    x = {
        "zero": torch.zeros(2, 16, 8, 8),
        "constant": torch.full((2, 16, 8, 8), 3.0),
        "huge": 1e4 * torch.randn(2, 16, 8, 8),
        "tiny": 1e-6 * torch.randn(2, 16, 8, 8),
        "one token": torch.randn(2, 16, 1, 1),
    }[content].requires_grad_()
    for _ in range(3):
        with (
            torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None),
            measured_reconstruction(block) as energies,
        ):
            out = block(x)
        grads = gradients(out.float(), [x, *block.parameters()])
        assert all(bool(item.isfinite().all()) for item in (out, reconstruction_error(energies), *grads))


def test_the_state_is_float32_under_autocast() -> None:
    x = torch.rand(2, 32, 64)
    bases = torch.rand(2, 32, 8)
    exact = nmf(x, bases)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nmf(x, bases), exact)
        rounded = nmf(x.bfloat16(), bases)
    assert rounded.dtype == torch.bfloat16
    # Rounding input and output to 8 bits costs 2.5e-3; a bfloat16 state 2e-2.
    assert (rounded - exact).norm() / exact.norm() < 5e-3


def test_one_nmf_step_lowers_the_error() -> None:
    torch.manual_seed(0)
    x, bases, coefficients = torch.rand(1, 20, 6), torch.rand(1, 6, 3), torch.rand(1, 20, 3)
    errors = []
    for _ in range(5):
        errors.append(float((x - coefficients @ bases.mT).norm()))
        bases, coefficients = nmf_step(x, bases, coefficients, x @ bases)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.6 * errors[0]


@pytest.mark.parametrize("bases", ["random", "persistent"])
@pytest.mark.parametrize("mode", ["spatial", "channel", "dual"])
def test_evaluation_is_a_function_of_the_image(
    mode: Literal["spatial", "channel", "dual"], bases: Literal["random", "persistent"]
) -> None:
    options: dict[str, Any] = {"version": "v2+", "dual": True} if mode == "dual" else {"mode": mode}
    config = HamburgerConfig(rank=4, bases=bases, **options)
    block = spatial_block(config, 16, positions=36).eval()
    x = torch.randn(3, 16, 6, 6)
    first = block(x)
    torch.manual_seed(99)
    torch.testing.assert_close(block(x), first, rtol=0, atol=0)
    alone = torch.cat([block(image[None]) for image in x])
    torch.testing.assert_close(alone, first, rtol=0, atol=2e-6)
    if bases == "random":
        again = spatial_block(config, 16).eval()
        again.load_state_dict(block.state_dict())
        torch.testing.assert_close(again(x), first, rtol=0, atol=0)


def test_training_draws_new_bases_for_every_sample_and_forward() -> None:
    block = spatial_block(HamburgerConfig(rank=4), 16)
    x = torch.randn(1, 16, 6, 6).expand(2, -1, -1, -1)
    first, second = block(x), block(x)
    assert not torch.allclose(first[0], first[1])
    assert not torch.allclose(first, second)
    generator = torch.Generator().manual_seed(3)
    drawn = one_tensor_of_bases(block, 2, 6, 6, generator)
    assert drawn.shape == (2, 16, 4)
    assert torch.equal(
        block(x, bases=drawn), block(x, bases=block.draw_bases(2, 6, 6, generator=generator.manual_seed(3)))
    )


def test_normalised_bases_have_unit_columns() -> None:
    block = spatial_block(HamburgerConfig(rank=4, normalise_bases=True), 16)
    torch.testing.assert_close(one_tensor_of_bases(block, 3, 6, 6).norm(dim=1), torch.ones(3, 4))


def test_inference_mode_leaves_usable_bases_behind() -> None:
    block = spatial_block(HamburgerConfig(rank=4, steps=1, gradient="unrolled"), 16).eval()
    x = torch.randn(1, 16, 4, 4)
    with torch.inference_mode():
        block(x)
    block(x.requires_grad_()).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("decomposition", DECOMPOSITIONS)
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_gradients_of_gradients_are_right(version: Version, decomposition: Decomposition) -> None:
    # R1 differentiates the squared norm of D's gradient. With one_step the numbers that the steps found are constants,
    # which finite differences cannot hold still: with steps=0 they do not depend on x, except in NMF's start.
    config = HamburgerConfig(
        version=version, decomposition=decomposition, rank=2, steps=1, gradient="unrolled", temperature=2.0
    )
    block = spatial_block(config, 3, torch.float64)
    bases = one_tensor_of_bases(block, 1, 2, 3).double()
    x = torch.randn(1, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: block(x, bases=bases), x)
    assert torch.autograd.gradgradcheck(lambda x: block(x, bases=bases), x)


@pytest.mark.parametrize("decomposition", DECOMPOSITIONS)
def test_r1_penalty_of_the_one_step_gradient_trains(decomposition: Decomposition) -> None:
    block = spatial_block(HamburgerConfig(decomposition=decomposition, rank=3), 8, torch.float64)
    bases = one_tensor_of_bases(block, 2, 4, 4).double()
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64, requires_grad=True)

    def penalty(forward: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        (grad,) = torch.autograd.grad((forward(x).tanh() * weights_like(x)).sum(), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), [x, *block.parameters()])

    fast, plain = penalty(lambda x: block(x, bases=bases)), penalty(lambda x: tokens_reference(block, x, bases))
    for actual, expected in zip(fast, plain, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


def test_persistent_bases_are_stored_and_follow_training() -> None:
    config = HamburgerConfig(rank=4, bases="persistent", momentum=0.5)
    block = spatial_block(config, 16)
    before = block.state_dict()["ham.bases"].clone()
    assert before.shape == (1, 16, 4)
    block(torch.randn(2, 16, 6, 6))
    assert block.ham.bases is not None
    after = block.ham.bases.clone()
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after.norm(dim=1), torch.ones(1, 4))
    block.eval()(torch.randn(2, 16, 6, 6))
    assert torch.equal(block.ham.bases, after)


@pytest.mark.parametrize(
    "options", [{}, {"decomposition": "cd"}, {"heads": 2}, {"version": "v2+", "dual": True}], ids=str
)
def test_reconstruction_error_is_that_of_the_reconstruction(options: dict[str, Any]) -> None:
    config = HamburgerConfig(rank=4, **options)
    block = spatial_block(config, 16, torch.float64)
    x = torch.randn(2, 16, 6, 6, dtype=torch.float64)
    bases = block.draw_bases(2, 6, 6)
    with measured_reconstruction(block) as energies:
        block(x, bases=bases)
    measured = reconstruction_error(energies)
    block(x, bases=bases)
    assert torch.equal(reconstruction_error(energies), measured)  # nothing is measured outside
    latent = block.lower_bread(x)
    latent = latent.relu() if config.decomposition == "nmf" else latent
    function: Callable[..., Tensor] = {"nmf": nmf, "cd": cd}[config.decomposition]
    if isinstance(bases, tuple):
        first, second = latent.chunk(2, dim=1)
        parts = [function(first.flatten(2), bases[0].double()), function(second.flatten(2).mT, bases[1].double()).mT]
        rebuilt = torch.cat(parts, dim=1)
    else:
        rebuilt = function(latent.reshape(2 * config.heads, -1, 36), bases.double())
    expected = (latent.flatten(2) - rebuilt.reshape(2, -1, 36)).norm() / latent.norm()
    torch.testing.assert_close(measured, expected, rtol=1e-9, atol=0)


class ScaledConv(nn.Conv2d):
    """Halve the stored weight, as a convolution under spectral normalisation scales it."""

    calls = 0

    def effective_weight(self) -> Tensor:
        self.calls += 1
        return self.weight / 2


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_effective_weights_are_read_once_per_forward(version: Version) -> None:
    config = HamburgerConfig(version=version, rank=4)
    block = Hamburger(8, config, lambda a, b: ScaledConv(a, b, 1, bias=False))
    plain = spatial_block(config, 8)
    halved = {name: value / 2 if value.dim() else value for name, value in block.state_dict().items()}
    plain.load_state_dict(halved | {"gate": torch.tensor(0.7)})
    assert block.gate is not None
    block.gate.data.fill_(0.7)
    x = torch.randn(2, 8, 4, 4)
    bases = block.draw_bases(2, 4, 4)
    torch.testing.assert_close(block(x, bases=bases), plain(x, bases=bases))
    assert {conv.calls for conv in block.modules() if isinstance(conv, ScaledConv)} == {1}


class ConditionalScale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, y: Tensor, condition: Tensor, weights: object) -> Tensor:
        scaled: Tensor = self.bn(y) * condition[:, None, None, None]
        return scaled


def test_the_condition_reaches_the_norm() -> None:
    block = spatial_block(HamburgerConfig(rank=4), 8, norm=ConditionalScale)
    x, bases = torch.randn(2, 8, 4, 4), block.draw_bases(2, 4, 4)
    out = block(x, torch.tensor([0.0, 1.0]), bases)
    torch.testing.assert_close(out[0], x[0])
    assert not torch.allclose(out[1], x[1])


def test_a_new_block_is_the_identity() -> None:
    block = Hamburger(8, HamburgerConfig(rank=4), lambda a, b: nn.Conv2d(a, b, 1, bias=False))
    x = torch.randn(2, 8, 4, 4)
    assert block.gate is not None
    assert block.gate.shape == ()
    assert torch.equal(block(x), x)


def test_blocks_build_on_the_meta_device() -> None:
    with torch.device("meta"):
        config = HamburgerConfig(rank=4, bases="persistent", version="v2+", dual=True)
        block = spatial_block(config, 16, positions=16)
        assert block(torch.randn(2, 16, 4, 4)).shape == (2, 16, 4, 4)
    assert {value.device.type for value in block.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("decomposition", DECOMPOSITIONS)
def test_the_block_compiles_into_one_graph(decomposition: Decomposition) -> None:
    torch.compiler.reset()
    block = spatial_block(HamburgerConfig(decomposition=decomposition, rank=4), 8)
    x, bases = torch.randn(2, 8, 4, 4), block.draw_bases(2, 4, 4)
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, bases=bases), block(x, bases=bases))
    compiled(x)
    expected = block.eval()(x)
    torch.testing.assert_close(compiled(x), expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (HamburgerConfig(heads=3), "16 channels do not divide into heads 3"),
        (HamburgerConfig(version="v2", cheese_factor=3), "cheese_factor 3 does not divide the 16 latent channels"),
        (HamburgerConfig(mode="channel", bases="persistent"), "needs the number of positions"),
    ],
)
def test_impossible_blocks_are_refused(config: HamburgerConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spatial_block(config, 16)


def test_bases_of_the_wrong_kind_are_refused() -> None:
    x, bases = torch.randn(2, 8, 4, 4), torch.rand(2, 8, 4)
    with pytest.raises(ConfigError, match="one tensor"):
        spatial_block(HamburgerConfig(rank=4), 8)(x, bases=(bases, bases))
    with pytest.raises(ConfigError, match="pair of bases"):
        spatial_block(HamburgerConfig(rank=4, version="v2+", dual=True), 8)(x, bases=bases)
    with pytest.raises(ConfigError, match="no bases to update"):
        Ham(HamburgerConfig(), 8).update_bases(bases)
