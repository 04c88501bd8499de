"""Check that the plain form computes what the fast form computes: outputs, gradients, losses of whole runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from support.small_runs import forget_accelerator, small_config
from torch import Tensor, nn

from benchmarks.plain import PlainConv2d, PlainStep, StraightforwardHamburger, plain_form
from benchmarks.steps import draw_batches
from hamgan.config import Config
from hamgan.errors import ConfigError
from hamgan.networks import Discriminator, Generator, build_networks
from hamgan.training.step import GanStep

BATCH = 4
OFFICIAL = [
    "generator.hierarchical=false",
    "generator.conditioning=per_class",
    *(
        f"{network}.spectral_norm.{option}"
        for network in ("generator", "discriminator")
        for option in ("vector=input", "clamp=true")
    ),
    *(f"{network}.init=glorot" for network in ("generator", "discriminator")),
]
ATTENTION = ["generator.context=attention", "discriminator.context=attention"]
WIDER = ["generator.channels=4", "discriminator.channels=8"]


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    forget_accelerator()
    yield Accelerator(cpu=True)
    forget_accelerator()


def networks(folder: Path, *overrides: str) -> tuple[Config, Generator, Discriminator]:
    """Build a small generator and discriminator in float64, with their gates open."""
    config = small_config(folder, "data.num_classes=5", *overrides)
    pair = build_networks(config)
    for network in pair:
        for name, parameter in network.double().named_parameters():
            if name.endswith("gate"):
                nn.init.constant_(parameter, 0.5)
    return config, *pair


def outputs_and_gradients(generator: Generator, discriminator: Discriminator) -> dict[str, Tensor]:
    """Return images, logits and the gradient of every weight, by the names of the fast form."""
    random = torch.Generator().manual_seed(1)
    z, labels = torch.randn(3, 16, generator=random, dtype=torch.float64), torch.tensor([4, 0, 2])
    bases = [network.draw_bases(3, z.device, random) for network in (generator, discriminator)]
    images = generator(z, labels, bases[0])
    logits = discriminator(images, labels, bases[1])
    ((logits * torch.arange(1.0, 4.0)).sum() + images.square().mean()).backward()
    found = {"images": images, "logits": logits}
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            plain_name = name.replace("parametrizations.", "").replace(".original", "")
            found[f"{type(network).__name__} {plain_name}"] = parameter.grad
        for name, buffer in network.named_buffers():
            if name.startswith("blocks") and "running" in name:
                found[f"{type(network).__name__} {name}"] = buffer
    return found


@pytest.mark.parametrize("overrides", [WIDER, OFFICIAL, [*ATTENTION, *WIDER]], ids=["BigGAN", "official", "attention"])
def test_outputs_and_gradients_are_those_of_the_fast_form(tmp_path: Path, overrides: list[str]) -> None:
    _, generator, discriminator = networks(tmp_path, *overrides)
    plain = outputs_and_gradients(plain_form(generator), plain_form(discriminator))
    fast = outputs_and_gradients(generator, discriminator)
    assert plain.keys() == fast.keys()
    for name, value in fast.items():
        difference = (value - plain[name]).abs().max().item()
        assert difference <= 1e-10 * max(1.0, value.abs().max().item()), f"{name}: {difference}"


def test_a_plain_network_is_plain(tmp_path: Path) -> None:
    _, generator, discriminator = networks(tmp_path)
    for network in (plain_form(generator), plain_form(discriminator)):
        kinds = [type(module).__name__ for module in network.modules()]
        assert not [kind for kind in kinds if kind.startswith("Spectral")]
        assert any(isinstance(module, StraightforwardHamburger) for module in network.modules())
        convolutions = [module for module in network.modules() if isinstance(module, PlainConv2d)]
        assert all(conv.weight.is_contiguous() for conv in convolutions)
        assert network.memory_format == torch.contiguous_format
    assert any(type(module).__name__.startswith("Spectral") for module in generator.modules())  # it was a copy


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-8)], ids=["fp32", "fp64"])
def test_losses_of_fifty_steps_are_those_of_the_fast_form(
    tmp_path: Path, accelerator: Accelerator, dtype: torch.dtype, tolerance: float
) -> None:
    # Adam's epsilon lies far above the rounding noise of gradients, which it would blow up to whole steps.
    config, generator, discriminator = networks(tmp_path, "train.adam_eps=1e-3")
    generator.to(dtype)
    discriminator.to(dtype)
    plain_pair = plain_form(generator), plain_form(discriminator)
    steps = [
        GanStep(generator, discriminator, config.train, accelerator),
        PlainStep(*plain_pair, config.train, accelerator),
    ]
    logits: list[Tensor] = []
    for step in steps:
        step.discriminator.register_forward_hook(lambda _, inputs, output: logits.append(output.detach().double()))
    for number in range(50):
        batches = draw_batches(config, steps[0], BATCH, number, dtype)
        for step in steps:
            step.discriminator_step([batches[0]])
            step.generator_step([batches[1]])
            step.update_average(number)
        fast, plain = losses(logits[0:2]), losses(logits[2:4])
        logits.clear()
        assert ((fast - plain).abs() <= tolerance * plain.abs().clamp_min(0.1)).all(), f"step {number}: {fast} {plain}"
    fast_average, plain_average = (step.average for step in steps)
    assert fast_average is not None
    assert plain_average is not None
    assert torch.allclose(fast_average.output_norm.bias, plain_average.output_norm.bias, atol=10 * tolerance)


def losses(logits: list[Tensor]) -> Tensor:
    """Return the hinge losses of D and G from the logits of D's and G's step."""
    fake, real = logits[0].chunk(2)
    return torch.stack([torch.relu(1 + fake).mean() + torch.relu(1 - real).mean(), -logits[1].mean()])


def test_another_kind_of_hamburger_is_a_sentence(tmp_path: Path) -> None:
    _, generator, _ = networks(tmp_path, "generator.hamburger.decomposition=vq")
    with pytest.raises(ConfigError, match=r"hamburger.decomposition: nmf, not vq"):
        plain_form(generator)
