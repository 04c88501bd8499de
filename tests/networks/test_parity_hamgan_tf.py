"""Test our networks with the official HamGAN's variables against its recorded numbers (golden/hamgan_tf/README.md)."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from support.paths import golden_file
from torch import Tensor, nn

from hamgan.config import Config
from hamgan.convert.mapping import Network
from hamgan.convert.official import convert_hamgan_tf, hamgan_tf
from hamgan.networks import Discriminator, Generator

# Rank and steps of the recording; the variables do not tell them.
RANKS = {"generator": 4, "discriminator": 2}


@lru_cache
def load(name: str) -> dict[str, Tensor]:
    with np.load(golden_file(f"hamgan_tf/{name}.npz")) as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


def part(recorded: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in recorded.items() if key.startswith(prefix)}


def network_of(name: str) -> Network:
    return "generator" if name.startswith("generator") else "discriminator"


def converted(name: str) -> tuple[Config, dict[str, Tensor]]:
    config, state = hamgan_tf(part(load(name), "var/"))
    config.generator.hamburger.rank = RANKS["generator"]
    config.discriminator.hamburger.rank = RANKS["discriminator"]
    return config, state


def generator_of(name: str) -> Generator:
    config, state = converted(name)
    generator = Generator(config.generator, config.resolution, config.data.num_classes or 0)
    generator.load_state_dict(state)
    return generator


def in_our_layout(name: str, prefix: str) -> dict[str, Tensor]:
    """Return recorded tensors (gradients, state after) under our names and in our layout."""
    recorded = load(name)
    network = network_of(name)
    values = {key: value for key, value in part(recorded, prefix).items() if key.startswith(network)}
    assert values
    conversion = convert_hamgan_tf(network, {**part(recorded, "var/"), **values})
    return {conversion.mapped[key]: conversion.state[conversion.mapped[key]] for key in values}


def assert_within(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    assert (actual.double() - expected.double()).abs().max().item() <= tolerance


def assert_gradients(network: nn.Module, name: str) -> None:
    """Check the norms of all gradients and the values of the recorded ones, to 1e-3 of the total norm."""
    recorded = load(name)
    parameters = {key: value.grad for key, value in network.named_parameters()}
    names = convert_hamgan_tf(network_of(name), part(recorded, "var/")).mapped
    norms = {names[key]: value for key, value in part(recorded, "gradnorm/").items() if key in names}
    assert set(norms) == set(parameters)
    total = torch.stack(list(norms.values())).norm().item()
    for key, norm in norms.items():
        gradient = parameters[key]
        assert gradient is not None
        # Biases in front of a batch norm have a true gradient of zero; what is recorded there is noise.
        if norm.item() > 1e-4 * total:
            assert gradient.norm().item() == pytest.approx(norm.item(), abs=1e-3 * total)
    for key, value in in_our_layout(name, "grad/").items():
        gradient = parameters[key]
        assert gradient is not None
        assert_within(gradient, value, 1e-3 * total)


@pytest.mark.parametrize("name", ["generator_v1_nmf", "generator_v2_nmf"])
def test_generator_in_training_mode(name: str) -> None:
    generator, io = generator_of(name).train(), load(name)
    seen: dict[str, Tensor] = {}
    generator.contexts["32"].register_forward_hook(lambda _, inputs, output: seen.update(x=inputs[0], y=output))
    out = generator(io["z"], io["labels"], {"32": io["bases"]})
    assert_within(seen["x"], io["ham_block_in"].permute(0, 3, 1, 2), 1e-4)
    assert_within(seen["y"], io["ham_block_out"].permute(0, 3, 1, 2), 1e-4)
    assert_within(out, io["out"].permute(0, 3, 1, 2), 2e-4)
    out.square().mean().backward()
    assert out.square().mean().item() == pytest.approx(io["loss"].item(), rel=1e-4)
    assert_gradients(generator, name)
    state = generator.state_dict()
    after = in_our_layout(name, "after/")
    assert len(after) == len(list(generator.buffers())) - sum("sigma" in key for key, _ in generator.named_buffers())
    for key, value in after.items():
        # One batch moves a moment by a thousandth: only a tight bound sees which variance was stored.
        assert_within(state[key], value, 1e-6 if "running" in key else 1e-5)


def test_generator_in_evaluation_mode() -> None:
    name = "generator_v1_nmf"
    generator, io = generator_of(name).eval(), load(name)
    seen: dict[str, Tensor] = {}
    generator.contexts["32"].register_forward_hook(lambda _, inputs, output: seen.update(x=inputs[0], y=output))
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    with torch.no_grad():
        out = generator(io["z"], io["labels"], {"32": io["bases"]})
    assert_within(out, io["eval/out"].permute(0, 3, 1, 2), 2e-5)
    assert seen["x"].abs().mean().item() == pytest.approx(io["eval/ham_block_in_meanabs"].item(), rel=1e-5)
    assert seen["y"].abs().mean().item() == pytest.approx(io["eval/ham_block_out_meanabs"].item(), rel=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())


def test_discriminator() -> None:
    name = "discriminator_v1_nmf"
    config, state = converted(name)
    discriminator = Discriminator(config.discriminator, config.resolution, config.data.num_classes or 0)
    discriminator.load_state_dict(state)
    io = load(name)
    seen: dict[str, Tensor] = {}
    discriminator.contexts["32"].register_forward_hook(lambda _, inputs, output: seen.update(x=inputs[0], y=output))
    image = io["image"].permute(0, 3, 1, 2).clone().requires_grad_()
    logits = discriminator.train()(image, io["labels"], {"32": io["bases"]})
    assert_within(logits, io["logits"].squeeze(1), 2e-5)
    assert_within(seen["x"], io["ham_block_in"].permute(0, 3, 1, 2), 2e-5)
    assert_within(seen["y"], io["ham_block_out"].permute(0, 3, 1, 2), 2e-5)
    loss = (logits * io["logit_weights"].squeeze(1)).sum()
    loss.backward()
    assert loss.item() == pytest.approx(io["loss"].item(), rel=1e-4)
    assert_gradients(discriminator, name)
    assert image.grad is not None
    assert image.grad.norm().item() == pytest.approx(io["gradnorm/image"].item(), rel=1e-4)
    assert_within(image.grad[:, :, 64].mT, io["grad/image_row64"], 1e-4 * io["gradnorm/image"].item())
    after = in_our_layout(name, "after/")
    for key, value in after.items():
        assert_within(discriminator.state_dict()[key], value, 1e-5)
