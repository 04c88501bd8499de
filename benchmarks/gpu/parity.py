"""Compare values and gradients of both networks on the device, in every precision, with float64 on the CPU."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.gpu import Clock
from benchmarks.report import Report, Table
from benchmarks.steps import read_config
from hamgan.config import Config
from hamgan.config.presets import find_config
from hamgan.hamburger.precision import using_tf32
from hamgan.networks import build_networks
from hamgan.training.compilation import obstacle

CONFIGS = ("photos", "photos128", "cifar10", "sagan_imagenet128", "hamgan_strong_imagenet128")
BATCH, WIDTH, LATENT = 8, 16, 64
WIDTH_WITH_ATTENTION = 32
"""Its queries have an eighth of the channels, and torch 2.11 fails to compile those of two."""
LOSS_SCALE = 1024.0
"""Keeps gradients in fp16 from vanishing, as the scaler of training does."""


@dataclass(frozen=True)
class Precision:
    """Name an arithmetic, with the largest relative error (L2 norm) allowed in values and in gradients."""

    name: str
    values: float
    gradients: float
    autocast: torch.dtype | None = None
    tf32: bool = False
    compiled: bool = False


# Some three times what a CPU shows: float32 gives 1e-5 and 9e-3 (G's gradient through ReLUs that flip near zero), bf16
# 0.025 and 0.17, fp16 0.004 and 0.06. TF32 rounds to the same bits as fp16.
PRECISIONS = (
    Precision("fp32", 1e-4, 3e-2),
    Precision("tf32", 1.5e-2, 0.2, tf32=True),
    Precision("bf16", 8e-2, 0.5, torch.bfloat16),
    Precision("fp16", 1.5e-2, 0.2, torch.float16),
    Precision("bf16, compiled", 8e-2, 0.5, torch.bfloat16, compiled=True),
)


def run(options: argparse.Namespace, clock: Clock) -> Report:
    """Measure every configuration; ``failures`` of the figures name the errors beyond their bounds."""
    bounds = ", ".join(f"{p.name} {p.values:g} and {p.gradients:g}" for p in PRECISIONS)
    report = Report(
        "Parity",
        f"Relative error (L2 norm) against float64 on the CPU, batch {BATCH}, widths of {WIDTH} at most, "
        f"{WIDTH_WITH_ATTENTION} with attention. Allowed in values and in gradients: {bounds}.",
        figures={"failures": []},
    )
    for name in options.configs or CONFIGS:
        if clock.allows(report, name):
            _measure(report, name, options)
    return report


def small_config(name: str, overrides: list[str]) -> Config:
    """Return a configuration with narrow networks, so that float64 on a CPU takes seconds."""
    config = read_config(find_config(name), overrides)
    networks = {}
    for part in ("generator", "discriminator"):
        network = getattr(config, part)
        ham = network.hamburger
        if ham.latent_dim is not None:
            ham = replace(ham, latent_dim=min(LATENT, ham.latent_dim))
        width = WIDTH_WITH_ATTENTION if network.context == "attention" else WIDTH
        networks[part] = replace(network, channels=min(width, network.channels), hamburger=ham)
    return replace(config, **networks)


def _measure(report: Report, name: str, options: argparse.Namespace) -> None:
    config = small_config(name, options.set)
    expected = forward_and_backward(config, torch.device("cpu"), torch.float64)
    rows: list[list[object]] = []
    for precision in PRECISIONS:
        if precision.compiled and (options.device.type == "cpu" or obstacle(options.device)):  # a CPU takes minutes
            continue
        found = forward_and_backward(config, options.device, torch.float32, precision)
        errors = {what: _distance(found[what], value) for what, value in expected.items()}
        rows.append([precision.name, *errors.values()])
        report.figures.setdefault(name, {})[precision.name] = errors
        for what, error in errors.items():
            allowed = precision.gradients if "gradient" in what else precision.values
            if not error <= allowed:
                sentence = f"{name}, {precision.name}: {what} are off by {error:.2g}, allowed is {allowed:g}"
                report.figures["failures"].append(sentence)
    report.tables.append(Table(["precision", *expected], rows, name))
    report.verdict = report.figures["failures"] or ["All errors are within their bounds."]


def forward_and_backward(
    config: Config, device: torch.device, dtype: torch.dtype, precision: Precision = PRECISIONS[0]
) -> dict[str, Tensor]:
    """Return images, logits and both networks' gradients of the mean logit, float64 on the CPU."""
    torch.manual_seed(0)
    generator, discriminator = (network.to(device, dtype) for network in build_networks(config))
    for network in (generator, discriminator):
        _prepare(network, device, precision)
    random = torch.Generator().manual_seed(1)
    z = torch.randn(BATCH, config.generator.latent_dim, generator=random)
    labels = torch.randint(generator.num_classes, (BATCH,), generator=random).to(device)
    drawn = [network.draw_bases(BATCH, torch.device("cpu"), random) for network in (generator, discriminator)]
    moved = [_map(bases, lambda tensor: tensor.to(device, dtype)) for bases in drawn]
    with using_tf32(precision.tf32):
        images = generator(z.to(device, dtype), labels, moved[0])
        logits = discriminator(images, labels, moved[1])
        (logits.mean() * LOSS_SCALE).backward()
    found = {"images": images, "logits": logits}
    found |= {"gradients of G": _gradients(generator), "gradients of D": _gradients(discriminator)}
    return {name: value.detach().double().cpu() for name, value in found.items()}


def _prepare(network: nn.Module, device: torch.device, precision: Precision) -> None:
    """Make autocast a part of the forward, as Accelerate does, and compile the network as training does."""
    if precision.autocast:
        network.forward = torch.autocast(device.type, precision.autocast)(network.forward)
    if precision.compiled:
        torch.compiler.reset()
        network.compile(dynamic=False)


def _map(bases: dict[str, Tensor | tuple[Tensor, Tensor]], move: Callable[[Tensor], Tensor]) -> dict[str, object]:
    return {key: tuple(map(move, value)) if isinstance(value, tuple) else move(value) for key, value in bases.items()}


def _gradients(network: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten().double() / LOSS_SCALE for p in network.parameters() if p.grad is not None])


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))
