"""Test SAN's last layer against its formula, where its gradients go, and a step of D written out."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from support.small_runs import last_state, run_small, small_config
from torch import Tensor

from hamgan.networks import build_networks
from hamgan.networks.slicing import SlicingLayer
from hamgan.training.inputs import Inputs
from hamgan.training.noise import Noise
from hamgan.training.step import GanStep

pytestmark = pytest.mark.usefixtures("new_accelerator")


def layer() -> tuple[SlicingLayer, Tensor, Tensor]:
    torch.manual_seed(0)
    made = SlicingLayer(3, 5).double()
    with torch.no_grad():
        made.direction.mul_(torch.tensor([[0.5], [2.0], [3.0]]))
        made.scale.copy_(torch.tensor([0.5, 1.5, -2.0]))
        made.bias.normal_()
    return made, torch.randn(4, 5).double().requires_grad_(), torch.tensor([2, 0, 1, 2])


def test_logits_are_the_scale_times_the_product_with_a_unit_vector() -> None:
    made, features, labels = layer()
    rows = made.direction[labels]
    unit = rows / rows.square().sum(1, keepdim=True).sqrt()
    expected = made.scale[labels] * (unit * (features + made.bias)).sum(1)
    assert torch.allclose(made(features, labels), expected, atol=1e-12)
    for logits in made(features, labels, apart=True):
        assert torch.allclose(logits, expected, atol=1e-12)


def test_the_gradients_of_both_go_apart_and_together_are_the_whole_one() -> None:
    made, features, labels = layer()
    inputs = {"features": features, **dict(made.named_parameters())}

    def gradients(logits: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(logits.square().sum(), list(inputs.values()), retain_graph=True)
        return dict(zip(inputs, found, strict=True))

    whole = gradients(made(features, labels))
    without, alone = (gradients(logits) for logits in made(features, labels, apart=True))
    assert not without["direction"].any()
    assert [name for name, gradient in alone.items() if gradient.any()] == ["direction"]
    for name, expected in whole.items():
        found = alone[name] if name == "direction" else without[name]
        assert expected.abs().max() > 1e-2
        assert torch.allclose(found, expected, atol=1e-12), name


def test_a_step_of_d_has_both_losses_and_leaves_unit_directions(tmp_path: Path) -> None:
    config = small_config(tmp_path, "data.num_classes=12", "discriminator.last_layer=san", "discriminator.context=none")
    step = GanStep(*build_networks(config), config.train, Accelerator(cpu=True))
    step.discriminator.eval()
    inputs = Inputs(config, Noise(0, torch.device("cpu"), 8), step.generator, step.discriminator)
    batch = inputs.for_discriminator(0, torch.rand(8, 3, 32, 32) * 2 - 1, torch.arange(8))
    running = {name: value.clone() for name, value in step.generator.state_dict().items()}
    loss, _ = step._discriminator_loss(batch, report=False)
    step.generator.load_state_dict(running)
    with torch.no_grad():
        fake = step.generator(batch.latents, batch.fake_labels, batch.generator_bases)
        logits_fake = step.discriminator(fake, batch.fake_labels)
        logits_real = step.discriminator(batch.images, batch.labels)
    hinge = (1 + logits_fake).relu().mean() + (1 - logits_real).relu().mean()
    assert loss.item() == pytest.approx((hinge + logits_fake.mean() - logits_real.mean()).item(), rel=1e-4)
    assert step.discriminator.slicing is not None
    before = step.discriminator.slicing.direction.detach().clone()
    step.discriminator_step([batch])
    after = step.discriminator.slicing.direction.detach()
    assert torch.allclose(after.norm(dim=1), torch.ones(12), atol=1e-6)
    assert not torch.allclose(after, before)


def test_a_run_with_san_and_top_k_goes_on_where_it_stopped(tmp_path: Path) -> None:
    options = ["discriminator.last_layer=san", "train.top_k=0.5", "train.lecam=0.1"]
    whole = last_state(run_small(tmp_path / "whole", *options, "train.total_kimg=0.032"))
    run_small(tmp_path / "parts", *options, "train.total_kimg=0.016")
    parts = last_state(run_small(tmp_path / "parts", *options, "train.total_kimg=0.032"))
    assert {name for name in whole if "slicing" in name and name.startswith("discriminator.")} == {
        f"discriminator.slicing.{name}" for name in ("direction", "scale", "bias")
    }
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
