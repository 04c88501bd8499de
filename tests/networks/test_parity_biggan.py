"""Test our networks with BigGAN-PyTorch's weights against its recorded numbers (golden/biggan_pytorch/README.md)."""

import pytest
import torch
from safetensors.torch import load_file
from support.foreign_weights import discriminator_of, generator_of, load_io
from support.paths import golden_file
from torch import Tensor, nn

from hamgan.convert.biggan import convert_biggan
from hamgan.networks.generator import standing_statistics

TAGS = ("biggan128", "biggan32_hier")


def load_weights(name: str) -> dict[str, Tensor]:
    return load_file(golden_file(f"biggan_pytorch/{name}.safetensors"))


def recorded_weights(shape: torch.Size, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the weights of the recorded sums: w_i = sin(0.7 i + 0.3) over the flat index."""
    index = torch.arange(shape.numel(), dtype=torch.float64)
    return torch.sin(0.7 * index + 0.3).to(dtype).reshape(shape)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Check the absolute difference, on the scale of the expected values where these are above 1."""
    assert actual.shape == expected.shape
    scale = max(1.0, expected.abs().max().item())
    assert (actual.double() - expected.double()).abs().max().item() <= tolerance * scale


def assert_buffers_follow(network: nn.Module, tag: str, recorded: dict[str, Tensor]) -> None:
    after = {key.removeprefix("after_train/"): value for key, value in recorded.items() if key.startswith("after_")}
    assert len(after) > 20
    names = convert_biggan(load_weights(tag)).mapped
    state = network.state_dict()
    for name, value in after.items():
        if name.endswith("sv0"):
            owner = network.get_submodule(names[name.replace("sv0", "u0")].removesuffix(".vector"))
            assert_close(owner.get_buffer("sigma").reshape(1), value, 1e-5)
        else:
            assert_close(state[names[name]], value.flatten(), 1e-5)


def watch_blocks(network: nn.Module, tag: str) -> dict[str, Tensor]:
    """Collect the outputs of residual and attention blocks in the next forward, under the reference's names."""
    seen: dict[str, Tensor] = {}
    for source, ours in convert_biggan(load_weights(tag)).mapped.items():
        for source_part, our_part in ((".conv1.weight", ".conv1.weight"), (".theta.weight", ".query.weight")):
            if source.endswith(source_part):
                block = network.get_submodule(ours.removesuffix(our_part))
                name = source.removesuffix(source_part)
                block.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: output}))
    return seen


def assert_blocks(seen: dict[str, Tensor], recorded: dict[str, Tensor]) -> None:
    """Check the mean, std, sum of absolutes and first 13 values of every block's output."""
    names = [key.removeprefix("block_train/") for key in recorded if key.startswith("block_train/")]
    assert set(names) == set(seen)
    for name in names:
        output = seen[name].detach().double()
        moments = torch.stack([output.mean(), output.std(), output.abs().sum()])
        summary = torch.cat([moments, output.flatten()[:13]])
        expected = recorded[f"block_train/{name}"].double()
        assert_close(summary[2] / expected[2], torch.ones(()), 1e-5)
        others = [index for index in range(16) if index != 2]
        assert_close(summary[others], expected[others], 2e-5)


def assert_gradients(network: nn.Module, tag: str, expected: dict[str, Tensor], tolerance: float) -> None:
    """Check every recorded gradient, on the scale of the network's largest one (some true gradients are zero)."""
    names = convert_biggan(load_weights(tag)).mapped
    parameters = dict(network.named_parameters())
    assert expected
    scale = max(value.abs().max().item() for value in expected.values())
    for name, value in expected.items():
        gradient = parameters[names[name]].grad
        assert gradient is not None
        assert_close(gradient / scale, value / scale, tolerance)


@pytest.mark.parametrize("tag", TAGS)
def test_generator_in_training_mode(tag: str) -> None:
    generator, io = generator_of(tag).train(), load_io(f"{tag}_g")
    blocks = watch_blocks(generator, f"{tag}_g")
    out = generator(io["z"], io["y"])
    assert_close(out, io["out_train"], 5e-5)
    assert_blocks(blocks, io)
    loss = (out * recorded_weights(out.shape)).sum()
    assert loss.item() == pytest.approx(io["loss_train"].item(), rel=1e-4)
    assert_buffers_follow(generator, f"{tag}_g", io)


@pytest.mark.parametrize("tag", TAGS)
def test_gradients_of_the_generator(tag: str) -> None:
    """Compare in float64: one ReLU that float32 rounds across zero on some processors moves the gradients by 1 %."""
    generator, io = generator_of(tag).train().double(), load_io(f"{tag}_g")
    z = io["z"].double().requires_grad_()
    out = generator(z, io["y"])
    (out * recorded_weights(out.shape, torch.float64)).sum().backward()
    assert_gradients(generator, f"{tag}_g", load_weights(f"{tag}_g_grads"), 2e-5)
    if "grad_z" in io:
        assert z.grad is not None
        assert_close(z.grad, io["grad_z"], 2e-5)


@pytest.mark.parametrize("tag", TAGS)
def test_generator_second_training_forward_and_evaluation_after_it(tag: str) -> None:
    generator, io = generator_of(tag).train(), load_io(f"{tag}_g")
    with torch.no_grad():
        generator(io["z"], io["y"])
        second = generator(io["z"], io["y"])
        assert_close(second.flatten()[:64], io["out_train_2nd_first64"], 5e-5)
        evaluated = generator.eval()(io["z"], io["y"])
    assert_close(evaluated.flatten()[:64], io["out_eval_after_2_train_first64"], 5e-5)
    moments = torch.stack([evaluated.double().mean(), evaluated.double().std()])
    assert_close(moments, io["out_eval_after_2_train_mean_std"], 1e-5)


@pytest.mark.parametrize("tag", TAGS)
def test_generator_in_evaluation_mode(tag: str) -> None:
    generator, io = generator_of(tag).eval(), load_io(f"{tag}_g")
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    with torch.no_grad():
        assert_close(generator(io["z"], io["y"]), io["out_eval"], 3e-5)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


@pytest.mark.parametrize("tag", TAGS)
def test_discriminator_through_three_training_forwards(tag: str) -> None:
    discriminator, io = discriminator_of(tag), load_io(f"{tag}_d")
    x = io["x"]
    with torch.no_grad():
        assert_close(discriminator.eval()(x, io["y"]), io["logits_eval"].squeeze(1), 2e-5)
        blocks = watch_blocks(discriminator.train(), f"{tag}_d")
        assert_close(discriminator(x, io["y"]), io["logits_train"].squeeze(1), 2e-5)
        assert_blocks(blocks, io)
        assert_buffers_follow(discriminator, f"{tag}_d", io)
        assert_close(discriminator(x, io["y"]), io["logits_train_2nd"].squeeze(1), 2e-5)
        assert_close(discriminator(x, io["y"]), io["logits_train_3rd"].squeeze(1), 2e-5)
        assert_close(discriminator.eval()(x, io["y"]), io["logits_eval_after_3_train"].squeeze(1), 2e-5)


@pytest.mark.parametrize("tag", TAGS)
def test_gradients_of_the_discriminator(tag: str) -> None:
    """Compare in float64, as for the generator."""
    discriminator, io = discriminator_of(tag).train().double(), load_io(f"{tag}_d")
    x = io["x"].double().requires_grad_()
    logits = discriminator(x, io["y"])
    (logits * recorded_weights(logits.shape, torch.float64)).sum().backward()
    assert_gradients(discriminator, f"{tag}_d", load_weights(f"{tag}_d_grads"), 1e-5)
    assert_gradient_sums(discriminator, f"{tag}_d", io)
    if "grad_x" in io:
        assert x.grad is not None
        assert_close(x.grad, io["grad_x"], 1e-5)


def assert_gradient_sums(network: nn.Module, tag: str, io: dict[str, Tensor]) -> None:
    """Check L2 norm, sum and sum(grad * w) of every parameter's gradient, also of those too large to be recorded."""
    names = convert_biggan(load_weights(tag)).mapped
    parameters = dict(network.named_parameters())
    recorded = {key.removeprefix("grad_norm/"): value for key, value in io.items() if key.startswith("grad_norm/")}
    assert recorded
    scale = max(value[0].item() for value in recorded.values())
    for name, value in recorded.items():
        gradient = parameters[names[name]].grad
        assert gradient is not None
        gradient = gradient.double()
        weights = recorded_weights(gradient.shape, torch.float64)
        sums = torch.stack([gradient.norm(), gradient.sum(), (gradient * weights).sum()])
        assert_close(sums / scale, value / scale, 1e-4)


def test_standing_statistics_equal_the_averages_of_the_reference() -> None:
    generator, io = generator_of("biggan32_hier"), load_io("biggan32_hier_standing")
    with torch.no_grad():
        running = generator.eval()(io["eval_z"], io["eval_y"])
        assert_close(running, io["out_eval_running_mybn"], 3e-5)
        standing_statistics(generator, list(zip(io["acc_z"], io["acc_y"], strict=True)))
        assert_close(generator(io["eval_z"], io["eval_y"]), io["out_eval_standing"], 3e-5)
    names = convert_biggan(load_weights("biggan32_hier_g")).mapped
    state = generator.state_dict()
    for key in [key for key in io if key.startswith("after/") and not key.endswith("counter")]:
        name = key.removeprefix("after/")
        count = io["after/" + name.rsplit(".", 1)[0] + ".accumulation_counter"]
        assert_close(state[names[name]], io[key] / count, 1e-5)
