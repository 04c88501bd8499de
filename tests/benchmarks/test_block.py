"""Test ``python -m benchmarks block``: the variants compute the same, and the report is complete."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.block import ATTENTION, OURS, PEER, STRAIGHTFORWARD, FlashAttention, make_blocks
from benchmarks.command import main
from benchmarks.plain import StraightforwardHamburger
from hamgan.config import HamburgerConfig, SpectralNormConfig
from hamgan.errors import ConfigError
from hamgan.hamburger import Hamburger
from hamgan.networks.attention import SelfAttention
from hamgan.networks.spectral_norm import SpectralConv2d

CPU = torch.device("cpu")


def conv(inputs: int, outputs: int) -> torch.nn.Conv2d:
    return torch.nn.Conv2d(inputs, outputs, 1, bias=False)


def unnormalised_conv(inputs: int, outputs: int) -> SpectralConv2d:
    layer = SpectralConv2d(inputs, outputs, 1, SpectralNormConfig(enabled=False), bias=False)
    torch.nn.init.normal_(layer.weight)
    return layer


def outcome(block: torch.nn.Module, x: torch.Tensor, **arguments: torch.Tensor) -> list[torch.Tensor]:
    y = block(x, **arguments)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y, *torch.autograd.grad((y * weights).sum(), [x, *block.parameters()])]


def test_the_straightforward_block_equals_ours() -> None:
    torch.manual_seed(0)
    block = Hamburger(8, HamburgerConfig(rank=3, heads=2), conv).double()
    torch.nn.init.constant_(block.get_parameter("gate"), 0.5)
    x = torch.randn(2, 8, 5, 4, dtype=torch.float64, requires_grad=True)
    bases = torch.rand(4, 4, 3, dtype=torch.float64)
    ours = outcome(block, x, bases=bases)
    straightforward = outcome(StraightforwardHamburger(block, 8), x, bases=bases)
    names = [sorted(map(str, (value.shape for value in values))) for values in (ours, straightforward)]
    assert names[0] == names[1]
    for one, other in zip(ours, straightforward, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_the_fused_attention_equals_the_networks_own() -> None:
    torch.manual_seed(0)
    fused, own = FlashAttention(16).double(), SelfAttention(16, unnormalised_conv).double()
    own.load_state_dict(fused.state_dict())
    for block in (fused, own):
        torch.nn.init.constant_(block.get_parameter("gate"), 0.5)
    x = torch.randn(2, 16, 4, 6, dtype=torch.float64, requires_grad=True)
    for one, other in zip(outcome(fused, x), outcome(own, x), strict=True):
        torch.testing.assert_close(one, other)


def test_all_blocks_take_the_same_feature_map() -> None:
    blocks = make_blocks(16, 8, 4, CPU)
    assert list(blocks) == [OURS, STRAIGHTFORWARD, PEER, ATTENTION]
    for block in blocks.values():
        assert block(torch.randn(2, 16, 8, 8)).shape == (2, 16, 8, 8)


def test_the_report_compares_time_memory_and_growth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "block.json"
    main(f"block --sizes 4,8 --channels 16 --rank 4 --rounds 2 --threads 1 --device cpu --json {file}".split())
    printed = capsys.readouterr().out
    assert "4x4: the Hamburger takes" in printed
    assert "From 4x4 to 8x8, 4 times the tokens" in printed
    figures = json.loads(file.read_text())["figures"]
    assert set(figures["8"]["flops"]) == {OURS, STRAIGHTFORWARD, PEER, ATTENTION}
    # Folding the upper bread into the bases leaves out the product of N D C.
    assert figures["8"]["flops"][OURS] < figures["8"]["flops"][STRAIGHTFORWARD]
    assert figures["8"]["peak_bytes"][OURS] < figures["8"]["peak_bytes"][STRAIGHTFORWARD]
    assert len(figures["4"]["timings"]["seconds"][PEER]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--sizes 32,x", "--sizes: 'x' is not a whole number of 1 or more"),
        ("--sizes 0", "--sizes: '0' is not a whole number"),
        ("--rank 0", "--rank: '0' is not a whole number"),
        ("--channels 100", "multiple of 8"),
        ("--rounds 0", "--rounds: '0' is not a whole number"),
        ("--device cuda:99", "device cuda:99 cannot be used"),
        ("--device abc", "device abc cannot be used"),
        ("--json /no/such/folder/x.json", "there is no folder"),
    ],
)
def test_bad_usage_is_a_sentence(arguments: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main(["block", *arguments.split()])
