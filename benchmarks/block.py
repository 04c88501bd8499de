"""The context block, forward and backward: time, memory and FLOPs against its alternatives and the number of tokens.

Alternatives on the same feature map: the straightforward Hamburger (the paper's PyTorch code), hamburger-pytorch (PyPI,
where installed; it learns one set of bases and coefficients), self-attention by scaled_dot_product_attention. Blocks
hold their 1x1 convolutions, no spectral norm.
"""

import argparse
from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.report import Report, Table
from benchmarks.straightforward import StraightforwardHamburger
from benchmarks.timing import Timings, Work, count_flops, interleaved, peak_memory
from hamgan.config import HamburgerConfig
from hamgan.errors import ConfigError
from hamgan.hamburger import Hamburger

OURS, STRAIGHTFORWARD, PEER, ATTENTION = "Hamburger", "straightforward", "hamburger-pytorch", "attention (SDPA)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sizes of the feature map and the rank."""
    parser.add_argument("--sizes", default="32,64", help="heights of the square feature map (default: 32,64)")
    parser.add_argument("--channels", type=int, default=256, help="channels, also of the decomposition (default: 256)")
    parser.add_argument("--rank", type=int, default=32, help="bases (default: 32)")
    parser.add_argument("--batch", type=int, default=2, help="feature maps at a time (default: 2)")
    parser.add_argument("--bf16", action="store_true", help="under bf16 autocast, as on GPUs")


class FlashAttention(nn.Module):
    """SAGAN's block with its widths C/8 and C/2 and pooled keys, on torch's fused kernel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, channels // 8, 1, bias=False) for _ in range(2))
        self.value = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.output = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        query = self.query(x).flatten(2).mT
        key, value = (F.max_pool2d(conv(x), 2).flatten(2).mT for conv in (self.key, self.value))
        mixed = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)[:, 0]
        return x + self.gate * self.output(mixed.mT.unflatten(2, x.shape[2:]))


def make_blocks(channels: int, size: int, rank: int, device: torch.device) -> dict[str, nn.Module]:
    """One block of every kind for feature maps of ``size`` x ``size``, gates at 1/2."""
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
        block.to(device)
    # The format that each is written for; the Hamburger's own is that of the networks here.
    return {name: block.to(memory_format=_layout(name)) for name, block in blocks.items()}


def _layout(name: str) -> torch.memory_format:
    return torch.channels_last if name in (OURS, ATTENTION) else torch.contiguous_format


def make_work(block: nn.Module, x: Tensor, bf16: bool = False) -> Work:
    """Forward and backward into the feature map and the weights."""
    weights = torch.randn_like(x)
    inputs = [x.requires_grad_(), *block.parameters()]

    def work() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            y = block(x)
        y.backward(weights.to(y.dtype))
        for tensor in inputs:
            tensor.grad = None

    return work


def measure_size(options: argparse.Namespace, size: int) -> tuple[Timings, dict[str, int], dict[str, int]]:
    """Time, peak bytes and FLOPs of every block at one size."""
    torch.manual_seed(0)
    shape = (options.batch, options.channels, size, size)
    works: dict[str, Callable[[], object]] = {}
    for name, block in make_blocks(options.channels, size, options.rank, options.device).items():
        x = torch.randn(shape, device=options.device).to(memory_format=_layout(name))
        works[name] = make_work(block, x, options.bf16)
    timings = interleaved(works, options.rounds, device=options.device)
    memory = {name: peak_memory(work, options.device) for name, work in works.items()}
    return timings, memory, {name: count_flops(work) for name, work in works.items()}


def run(options: argparse.Namespace) -> Report:
    """Measure every size; the growth between the first and the last one tells how the cost depends on the tokens."""
    sizes = _check(options)
    tables, verdict, figures = [], [], {}
    medians: dict[int, dict[str, float]] = {}
    for size in sizes:
        timings, memory, flops = measure_size(options, size)
        medians[size] = {name: timings.median(name) for name in timings.seconds}
        rows = [
            [
                name,
                1e3 * timings.median(name),
                timings.ratio(OURS, name),
                memory[name] / 2**20,
                memory[OURS] / memory[name],
                flops[name] / options.batch / 1e9,
                f"{timings.spread(name):.0%}",
            ]
            for name in timings.seconds
        ]
        headers = ["block", "ms", "Hamburger / it", "peak MiB", "Hamburger / it", "GFLOP / image", "spread"]
        tables.append(Table(headers, rows, f"{size}x{size}, {options.channels} channels, rank {options.rank}"))
        figures[str(size)] = {"timings": timings.to_json(), "peak_bytes": memory, "flops": flops}
        verdict.append(_sentence(size, timings, memory))
    if len(sizes) > 1:
        verdict.append(_growth(medians, sizes[0], sizes[-1]))
    protocol = f"Forward and backward, batch {options.batch}, {'bf16 autocast' if options.bf16 else 'float32'}, "
    protocol += f"{torch.get_num_threads()} thread(s); medians of {options.rounds} interleaved rounds."
    return Report("Context block", protocol, tables, verdict, figures)


def _check(options: argparse.Namespace) -> list[int]:
    try:
        sizes = sorted({int(size) for size in options.sizes.split(",")})
    except ValueError:
        raise ConfigError(f"--sizes {options.sizes!r} must be whole numbers with commas between, as 32,64") from None
    for name, value in (("sizes", sizes[0]), ("rank", options.rank), ("batch", options.batch)):
        if value < 1:
            raise ConfigError(f"--{name} is {value}; it must be 1 or more")
    if options.channels < 8 or options.channels % 8 or options.channels % options.rank:
        raise ConfigError(
            f"--channels is {options.channels}; it must be a multiple of 8 (attention) and of --rank {options.rank}"
        )
    return sizes


def _sentence(size: int, timings: Timings, memory: dict[str, int]) -> str:
    against = ", ".join(
        f"{timings.ratio(OURS, name):.2f} of the time and {memory[OURS] / memory[name]:.2f} of the memory of {name}"
        for name in timings.seconds
        if name != OURS
    )
    return f"{size}x{size}: the Hamburger takes {against}."


def _growth(medians: dict[int, dict[str, float]], small: int, large: int) -> str:
    times = ", ".join(f"{name} {medians[large][name] / medians[small][name]:.1f}" for name in medians[large])
    return (
        f"From {small}x{small} to {large}x{large}, {(large / small) ** 2:.0f} times the tokens, time grows by: {times}."
    )
