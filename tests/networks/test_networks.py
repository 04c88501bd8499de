"""Test generator and discriminator: sizes, shapes, exact algebra, initial weights, folding."""

import dataclasses
from typing import Literal

import pytest
import torch
from torch import Tensor

from hamgan.config import Config, load_config
from hamgan.convert.official import official_base
from hamgan.errors import ConfigError
from hamgan.networks import Discriminator, Generator, build_networks, count_parameters
from hamgan.networks.generator import standing_statistics
from hamgan.networks.spectral_norm import SpectralWeight

ATTENTION = ["generator.context=attention", "discriminator.context=attention"]
SMALL = [
    "resolution=32",
    "data.num_classes=5",
    "generator.channels=4",
    "discriminator.channels=4",
    "generator.latent_dim=20",
    "generator.class_embedding_dim=8",
    "generator.context_resolutions=[16]",
    "discriminator.context_resolutions=[16]",
    "generator.hamburger.rank=4",
    "discriminator.hamburger.rank=4",
]


def official(context: Literal["hamburger", "none"], version: Literal["v1", "v2"] = "v1") -> Config:
    config = official_base()
    config.resolution, config.data.num_classes = 128, 1000
    config.generator.latent_dim = 128
    for network in (config.generator, config.discriminator):
        network.channels, network.context, network.context_resolutions = 64, context, [32]
        network.hamburger.version = version
    return config


def biggan(channels: int) -> Config:
    widths = [f"generator.channels={channels}", f"discriminator.channels={channels}"]
    return load_config(None, [*ATTENTION, *widths, "data.num_classes=1000"])


@pytest.mark.parametrize(
    ("config", "generator_count", "discriminator_count"),
    [
        pytest.param(biggan(96), 70_433_988, 87_982_370, id="BigGAN, 96"),
        pytest.param(biggan(64), 31_978_628, 39_448_258, id="BigGAN, 64"),
        pytest.param(official("hamburger"), 42_640_004, 39_475_906, id="official v1"),
        pytest.param(official("hamburger", "v2"), 42_705_540, 39_492_290, id="official v2"),
        pytest.param(official("none"), 41_996_931, 39_443_137, id="official, no context block"),
    ],
)
def test_parameter_counts(config: Config, generator_count: int, discriminator_count: int) -> None:
    with torch.device("meta"):
        generator, discriminator = build_networks(config)
    assert count_parameters(generator) == generator_count
    assert count_parameters(discriminator) == discriminator_count


@pytest.mark.parametrize("resolution", [32, 64, 128, 256, 512])
def test_shapes_at_every_resolution(resolution: int) -> None:
    size = min(64, resolution // 2)
    config = load_config(
        None,
        [
            f"resolution={resolution}",
            "data.num_classes=3",
            f"generator.latent_dim={10 * (resolution.bit_length() - 2)}",
            f"generator.context_resolutions=[{size}]",
            f"discriminator.context_resolutions=[{size}]",
            "generator.channels=2",
            "discriminator.channels=2",
        ],
    )
    generator, discriminator = build_networks(config)
    with torch.no_grad():
        images = generator(torch.ones(2, config.generator.latent_dim), torch.zeros(2, dtype=torch.int64))
        logits = discriminator(images, torch.zeros(2, dtype=torch.int64))
    assert list(generator.contexts) == list(discriminator.contexts) == [str(size)]
    assert images.shape == (2, 3, resolution, resolution)
    assert logits.shape == (2,)


def small_networks(*overrides: str, seed: int = 0) -> tuple[Generator, Discriminator]:
    return build_networks(load_config(None, [*SMALL, f"seed={seed}", *overrides]))


def sample_input(count: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, 20, generator=generator, dtype=torch.float64)
    return z, torch.randint(5, (count,), generator=generator)


def open_gates(network: torch.nn.Module) -> None:
    for name, parameter in network.named_parameters():
        if name.endswith("gate"):
            torch.nn.init.constant_(parameter, 0.7)


def test_initial_weights_are_a_function_of_the_seed_and_leave_the_global_state_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, _ = small_networks(seed=4)
    assert torch.equal(torch.rand(3), expected)
    again, _ = small_networks(seed=4)
    other, _ = small_networks(seed=5)
    pairs = list(zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert all(torch.equal(one, two) for one, two in pairs)
    assert not torch.equal(first.linear.weight, other.linear.weight)


def test_orthogonal_and_glorot_initialisation() -> None:
    orthogonal, _ = small_networks("generator.init=orthogonal")
    rows = orthogonal.output_conv.weight.detach().flatten(1)
    assert torch.allclose(rows @ rows.mT, torch.eye(3), atol=1e-5)
    glorot, _ = small_networks("generator.init=glorot")
    weight = glorot.output_conv.weight.detach()
    bound = (6 / (9 * (weight.shape[0] + weight.shape[1]))) ** 0.5
    assert 0.95 * bound < weight.abs().max().item() <= bound
    assert glorot.output_conv.bias is not None
    assert not glorot.output_conv.bias.detach().any()


def test_a_new_context_block_is_the_identity() -> None:
    """Check that a network draws the same first image with attention as with a Hamburger, as the gate starts at 0."""
    z, labels = sample_input()
    images = []
    for context in ("hamburger", "none"):
        generator, _ = small_networks(f"generator.context={context}")
        reference, _ = small_networks("generator.context=none")
        generator.load_state_dict(reference.state_dict(), strict=False)
        images.append(generator.eval()(z.float(), labels))
    assert torch.equal(*images)


@pytest.mark.parametrize("context", ["hamburger", "attention"])
def test_an_image_in_evaluation_mode_does_not_depend_on_its_batch(context: str) -> None:
    generator, _ = small_networks(f"generator.context={context}", "generator.channels=8")
    open_gates(generator.eval())
    z, labels = sample_input(4)
    with torch.no_grad():
        together = generator.double()(z, labels)
        alone = torch.cat([generator(z[i : i + 1], labels[i : i + 1]) for i in range(4)])
    assert (together - alone).abs().max().item() < 1e-12


def test_folding_keeps_the_images_and_drops_the_vectors() -> None:
    generator, _ = small_networks()
    open_gates(generator.eval())
    z, labels = sample_input()
    with torch.no_grad():
        before = generator.double()(z, labels)
        for module in generator.modules():
            if isinstance(module, SpectralWeight):
                module.fold()
        after = generator(z, labels)
        again = generator(z, labels)  # from the kernels kept by the call before
    assert (before - after).abs().max().item() < 1e-12
    assert torch.equal(after, again)
    assert not any("vector" in name for name in generator.state_dict())


def test_logits_are_in_float32_under_autocast() -> None:
    _, discriminator = small_networks()
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        logits = discriminator(images, torch.tensor([0, 1]))
    assert logits.dtype == torch.float32


def test_class_and_latent_both_decide_the_image() -> None:
    generator, _ = small_networks()
    z, _ = sample_input(2)
    z = z[:1].repeat(2, 1).float()
    generator.eval()
    with torch.no_grad():
        one, other = generator(z, torch.tensor([0, 3]))
        same, moved = generator(torch.cat([z[:1], z[:1] + 1]), torch.tensor([0, 0]))
    assert (one - other).abs().max() > 1e-3
    assert (same - moved).abs().max() > 1e-3


def test_unknown_number_of_classes_is_a_sentence() -> None:
    config = load_config(None, SMALL)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, num_classes=None))
    with pytest.raises(ConfigError, match="num_classes is not set"):
        build_networks(config)


def test_persistent_bases_know_the_positions_of_their_feature_map_and_standing_statistics_leave_them() -> None:
    config = load_config(
        None,
        [
            "data.num_classes=3",
            "resolution=32",
            "generator.channels=2",
            "generator.latent_dim=16",
            "generator.context_resolutions=[16]",
            "generator.hamburger.bases=persistent",
            "generator.hamburger.mode=channel",
            "generator.hamburger.rank=4",
            "discriminator.channels=2",
            "discriminator.context=none",
        ],
    )
    generator, _ = build_networks(config)
    z, labels = torch.randn(2, 16), torch.tensor([0, 2])
    images = generator(z, labels)
    assert images.shape == (2, 3, 32, 32)
    assert torch.isfinite(images).all()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    standing_statistics(generator.eval(), [(z, labels)])
    moved = {name for name, value in generator.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[2] for name in moved} == {"running_mean", "running_var", "vector"}


def test_attention_on_too_few_channels_is_a_sentence() -> None:
    config = load_config(None, ["data.num_classes=3", "generator.channels=2", "generator.context=attention"])
    with pytest.raises(ConfigError, match=r"those of 64 px have 4 with channels: 2; take channels: 4 or more"):
        build_networks(config)
