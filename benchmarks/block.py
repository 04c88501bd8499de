"""Measure the context block, forward and backward, beside its alternatives and by the number of tokens."""

import argparse
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain import StraightforwardHamburger
from benchmarks.report import Report, cost_table
from benchmarks.timing import Costs, Work, measure_costs
from hamgan.config import HamburgerConfig
from hamgan.errors import ConfigError
from hamgan.hamburger import Hamburger

OURS, STRAIGHTFORWARD, PEER, ATTENTION = "Hamburger", "straightforward", "hamburger-pytorch", "attention (SDPA)"


class FlashAttention(nn.Module):
    """Compute SAGAN's block with its widths C/8 and C/2 and pooled keys, on torch's fused kernel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, channels // 8, 1, bias=False) for _ in range(2))
        self.value = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.output = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Add the context to a feature map [B, C, H, W]."""
        query = self.query(x).flatten(2).mT
        key, value = (F.max_pool2d(conv(x), 2).flatten(2).mT for conv in (self.key, self.value))
        mixed = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)[:, 0]
        out: Tensor = x + self.gate * self.output(mixed.mT.unflatten(2, x.shape[2:]))
        return out


def make_blocks(channels: int, size: int, rank: int, device: torch.device) -> dict[str, nn.Module]:
    """Make one block of every kind for feature maps of ``size`` x ``size``, with gates of 1/2."""
    config = HamburgerConfig(rank=rank)

    def conv(inputs: int, outputs: int) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, 1, bias=False)

    blocks: dict[str, nn.Module] = {
        OURS: Hamburger(channels, config, conv),
        STRAIGHTFORWARD: StraightforwardHamburger(Hamburger(channels, config, conv), channels),
    }
    if find_spec("hamburger_pytorch"):
        from hamburger_pytorch import Hamburger as Peer

        blocks[PEER] = Peer(dim=channels, n=size * size, ratio=channels // rank, K=config.steps)
    blocks[ATTENTION] = FlashAttention(channels)
    for name, block in blocks.items():
        if name != PEER:
            nn.init.constant_(block.get_parameter("gate"), 0.5)
    return {name: block.to(device).to(memory_format=_layout(name)) for name, block in blocks.items()}


def _layout(name: str) -> torch.memory_format:
    """Return the format that a block is written for; the Hamburger's own is that of the networks here."""
    return torch.channels_last if name in (OURS, ATTENTION) else torch.contiguous_format


def make_work(block: nn.Module, x: Tensor, bf16: bool = False) -> Work:
    """Make work of forward and backward into the feature map and the weights."""
    weights = torch.randn_like(x)
    inputs = [x.requires_grad_(), *block.parameters()]

    def work() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            y = block(x)
        y.backward(weights.to(y.dtype))
        for tensor in inputs:
            tensor.grad = None

    return work


def measure_size(options: argparse.Namespace, size: int) -> Costs:
    """Measure time, peak bytes and FLOPs of every block at one size."""
    torch.manual_seed(0)
    shape = (options.batch, options.channels, size, size)
    works: dict[str, Work] = {}
    for name, block in make_blocks(options.channels, size, options.rank, options.device).items():
        x = torch.randn(shape, device=options.device).to(memory_format=_layout(name))
        works[name] = make_work(block, x, options.bf16)
    return measure_costs(works, options.rounds, options.device)


def run(options: argparse.Namespace) -> Report:
    """Measure every size; the growth between the smallest and the largest tells how the cost depends on the tokens."""
    if options.channels % 8 or options.channels % options.rank:
        raise ConfigError(
            f"--channels is {options.channels}; it must be a multiple of 8 (attention) and of --rank {options.rank}"
        )
    protocol = f"Forward and backward, batch {options.batch}, {'bf16 autocast' if options.bf16 else 'float32'}, "
    protocol += f"{torch.get_num_threads()} thread(s); medians of {options.rounds} rounds in turn."
    report = Report("Context block", protocol)
    sizes = sorted(options.sizes)
    measured = {size: measure_size(options, size) for size in sizes}
    for size, costs in measured.items():
        title = f"{size}x{size}, {options.channels} channels, rank {options.rank}"
        report.tables.append(cost_table(title, costs, options.batch, OURS))
        report.figures[str(size)] = costs.to_json()
        report.verdict.append(_compare(size, costs))
    if len(sizes) > 1:
        report.verdict.append(_compare_sizes(measured, sizes[0], sizes[-1]))
    return report


def _compare(size: int, costs: Costs) -> str:
    against = ", ".join(
        f"{costs.timings.ratio(OURS, name):.2f} of the time and {costs.memory[OURS] / memory:.2f} of the memory of "
        f"{name}"
        for name, memory in costs.memory.items()
        if name != OURS
    )
    return f"{size}x{size}: the Hamburger takes {against}."


def _compare_sizes(measured: dict[int, Costs], small: int, large: int) -> str:
    few, many = measured[small].timings, measured[large].timings
    times = ", ".join(f"{name} {many.median(name) / few.median(name):.1f}" for name in many.seconds)
    return (
        f"From {small}x{small} to {large}x{large}, {(large / small) ** 2:.0f} times the tokens, time grows by: {times}."
    )
