"""Test our step against whole float64 training steps of BigGAN-PyTorch (golden/biggan_pytorch/README.md).

Hinge loss, two accumulations in D and G, orthogonal regularisation, Adam, and an average with a start.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file
from support.foreign_weights import discriminator_of, generator_of, load_io
from support.paths import golden_file
from torch import Tensor, nn

from hamgan.config import TrainConfig
from hamgan.convert.biggan import convert_biggan
from hamgan.training.inputs import DiscriminatorBatch, GeneratorBatch
from hamgan.training.step import GanStep

TAG = "biggan32_hier"


def recorded_settings() -> dict[str, float]:
    configs = json.loads(golden_file("biggan_pytorch/configs.json").read_text())
    recorded: dict[str, float] = configs["training_steps"][TAG]
    return recorded


def our_settings() -> TrainConfig:
    recorded = recorded_settings()
    accumulation = int(recorded["num_D_accumulations"])
    assert accumulation == recorded["num_G_accumulations"]
    images = int(recorded["batch_size"]) * accumulation
    return TrainConfig(
        batch_size=images,
        accumulation=accumulation,
        discriminator_steps=int(recorded["num_D_steps"]),
        generator_lr=recorded["G_lr"],
        discriminator_lr=recorded["D_lr"],
        beta1=recorded["G_B1"],
        beta2=recorded["G_B2"],
        adam_eps=recorded["adam_eps"],
        orthogonal_regularisation=recorded["G_ortho"],
        ema_decay=recorded["ema_decay"],
        ema_start_kimg=recorded["ema_start"] * images / 1000,
    )


class Replay:
    """Replay the recorded latents, labels and images in the order in which the reference consumed them."""

    def __init__(self) -> None:
        self.io = load_io(f"{TAG}_steps")
        self.settings = our_settings()
        self.size = self.settings.batch_size // self.settings.accumulation
        self._latents = iter(zip(self.io["z"].double(), self.io["gy"], strict=True))

    def discriminator_batches(self, iteration: int) -> list[DiscriminatorBatch]:
        images = self.io["x"][iteration].double().split(self.size)
        labels = self.io["y"][iteration].split(self.size)
        return [DiscriminatorBatch(x, y, *next(self._latents)) for x, y in zip(images, labels, strict=True)]

    def generator_batches(self) -> list[GeneratorBatch]:
        return [GeneratorBatch(*next(self._latents)) for _ in range(self.settings.accumulation)]


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    yield Accelerator(cpu=True, mixed_precision="no")
    AcceleratorState._reset_state(True)
    PartialState._reset_state()


def make_step(accelerator: Accelerator, settings: TrainConfig) -> GanStep:
    return GanStep(generator_of(TAG).double(), discriminator_of(TAG).double(), settings, accelerator)


def run_iterations(step: GanStep, replay: Replay, count: int) -> list[dict[str, Tensor]]:
    """Drive our training step; return the losses of the last micro-batch of every iteration."""
    seen: list[Tensor] = []
    hook = step.discriminator.register_forward_hook(lambda _, inputs, logits: seen.append(logits.detach()))
    losses = []
    for iteration in range(count):
        step.discriminator_step(replay.discriminator_batches(iteration))
        fake, real = seen[-1].chunk(2)
        step.generator_step(replay.generator_batches())
        losses.append(
            {
                "D_loss_fake": torch.relu(1 + fake).mean(),
                "D_loss_real": torch.relu(1 - real).mean(),
                "G_loss": -seen[-1].mean() / replay.settings.accumulation,
            }
        )
        step.update_average((iteration + 1) * replay.settings.batch_size)
    hook.remove()
    return losses


def assert_state(network: nn.Module, prefix: str, tag: str) -> None:
    after = load_file(golden_file(f"biggan_pytorch/{TAG}_steps_after.safetensors"))
    names = convert_biggan(load_file(golden_file(f"biggan_pytorch/{tag}.safetensors"))).mapped
    state = network.state_dict()
    expected = {key.removeprefix(prefix): value for key, value in after.items() if key.startswith(prefix)}
    assert set(names) <= set(expected)
    for source, ours in names.items():
        difference = (state[ours] - expected[source].reshape(state[ours].shape)).abs().max().item()
        assert difference < 1e-9, f"{ours} differs by {difference}"


def test_training_steps_equal_the_reference(accelerator: Accelerator) -> None:
    replay = Replay()
    step = make_step(accelerator, replay.settings)
    losses = run_iterations(step, replay, int(recorded_settings()["iters"]))
    for number, row in enumerate(losses, start=1):
        for name, value in row.items():
            assert value.item() == pytest.approx(replay.io[f"iter{number}/{name}"].item(), abs=1e-9)
    assert_state(step.generator, "g.", f"{TAG}_g")
    assert_state(step.discriminator, "d.", f"{TAG}_d")
    assert step.average is not None
    assert_state(step.average, "ema.", f"{TAG}_g")


def test_first_generator_gradients_hold_the_orthogonal_regularisation(accelerator: Accelerator) -> None:
    replay = Replay()
    step = make_step(accelerator, replay.settings)
    run_iterations(step, replay, 1)
    stored = load_file(golden_file(f"biggan_pytorch/{TAG}_step1_ggrads.safetensors"))
    recorded = {name.removeprefix("g."): value for name, value in stored.items()}
    names = convert_biggan(load_file(golden_file(f"biggan_pytorch/{TAG}_g.safetensors"))).mapped
    gradients = {name: parameter.grad for name, parameter in step.generator.named_parameters()}
    assert {names[name] for name in recorded} == set(gradients)
    for name, value in recorded.items():
        gradient = gradients[names[name]]
        assert gradient is not None
        assert (gradient - value).abs().max().item() < 1e-9


@pytest.mark.parametrize(
    "change",
    [
        {"orthogonal_regularisation": 0.0},
        {"ema_start_kimg": 0.0},
        {"adam_eps": 1e-8},
        {"adam_eps_placement": "tensorflow"},
        {"loss": "wasserstein"},
    ],
)
def test_every_setting_of_the_recorded_steps_counts(accelerator: Accelerator, change: dict[str, Any]) -> None:
    replay = Replay()
    step = make_step(accelerator, dataclasses.replace(replay.settings, **change))
    run_iterations(step, replay, int(recorded_settings()["iters"]))
    assert step.average is not None
    with pytest.raises(AssertionError, match="differs by"):
        assert_state(step.average, "ema.", f"{TAG}_g")
