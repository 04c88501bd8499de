"""Check rates, groups of parameters and the optimisers' states of a segmenter in training."""

import copy

import pytest
import torch
from accelerate import Accelerator
from support.segmenters import miniature_config
from torch import nn

from hamgan.checkpoint.state import load_state_tensors, state_tensors
from hamgan.errors import ConfigError
from hamgan.networks.batch_norm import CrossReplicaBatchNorm2d, convert_cross_replica
from hamgan.segmentation.config import load_config
from hamgan.segmentation.data.loader import Batch
from hamgan.segmentation.data.source import IGNORED
from hamgan.segmentation.parameters import describe_groups, parameter_groups
from hamgan.segmentation.schema import SegmentationConfig, TrainConfig
from hamgan.segmentation.segmenter import build_segmenter, normalise
from hamgan.segmentation.step import SegmentationStep, StepInput, learning_rate, make_input
from hamgan.training.noise import Noise

LIGHT_HAM = TrainConfig()
HAMNET = TrainConfig(optimizer="sgd", lr=0.01, power=0.9, min_lr=1e-4, warmup_kimg=0.0)


def small_config(**train: object) -> SegmentationConfig:
    config = miniature_config()
    config.encoder.drop_path = 0.2
    for name, value in {"batch_size": 4, "lr": 1e-3, "warmup_kimg": 0.0, "total_kimg": 1.0, **train}.items():
        setattr(config.train, name, value)
    return config


def make_step(config: SegmentationConfig) -> SegmentationStep:
    return SegmentationStep(build_segmenter(config), config, Accelerator(cpu=True))


def batch(size: int = 4, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 128, (size, 3, 64, 64), generator=generator, dtype=torch.uint8)
    images[..., 32:] += 127  # what is bright is of class 5
    labels = torch.zeros(size, 64, 64, dtype=torch.uint8)
    labels[..., 32:], labels[:, :5] = 5, IGNORED
    return Batch(images, labels, torch.full((size, 2), 64))


def inputs(step: SegmentationStep, parts: int = 1, counter: int = 0) -> list[StepInput]:
    """Return one batch of four images, as it is or in parts with the same noise."""
    whole = make_input(batch(), step.network, Noise(0, torch.device("cpu"), 4), counter)
    return [
        StepInput(
            whole.images[part],
            whole.labels[part],
            type(whole.noise)(*(None if v is None else v.chunk(parts)[i] for v in whole.noise)),
        )
        for i, part in enumerate(torch.arange(4).chunk(parts))
    ]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 6e-5 * 1e-6),
        (1, (6e-5 * (1 - 1 / 160_000)) * (1 - (1 - 1 / 1500) * (1 - 1e-6))),
        (749, (6e-5 * (1 - 749 / 160_000)) * (1 - (1 - 749 / 1500) * (1 - 1e-6))),
        (1499, (6e-5 * (1 - 1499 / 160_000)) * (1 - (1 - 1499 / 1500) * (1 - 1e-6))),
        (1500, 6e-5 * (1 - 1500 / 160_000)),
        (80_000, 3e-5),
        (159_999, 6e-5 / 160_000),
    ],
)
def test_the_rate_of_light_ham_is_that_of_its_recipe(step: int, expected: float) -> None:
    assert learning_rate(LIGHT_HAM, 16 * step) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("step", [0, 1, 80_000, 159_999, 160_000])
def test_the_rate_of_hamnet_is_that_of_its_recipe(step: int) -> None:
    expected = (0.01 - 1e-4) * (1 - step / 160_000) ** 0.9 + 1e-4
    assert learning_rate(HAMNET, 16 * step) == pytest.approx(expected, rel=1e-9)


def test_groups_of_light_ham_decay_what_the_reference_decays() -> None:
    """Check by kinds of layers: a VAN's norms are without decay, the head's norms and all biases elsewhere are not."""
    config = load_config("light_ham_van_small_ade20k", ["data.num_classes=150"])
    with torch.device("meta"):
        network = build_segmenter(config)
    groups = {group.name: group for group in parameter_groups(network, config.train)}
    owners = {
        f"{name}.{own}": module
        for name, module in network.named_modules()
        for own, _ in module.named_parameters(recurse=False)
    }
    norms = {name for name, module in owners.items() if isinstance(module, nn.BatchNorm2d | nn.LayerNorm)}
    assert set(groups["encoder, no decay"].parameters) == norms
    assert any(isinstance(owners[name], nn.GroupNorm) for name in groups["heads, decay"].parameters)
    assert {group.weight_decay for group in groups.values()} == {0.0, 0.01}
    assert sum(len(group.parameters) for group in groups.values()) == len(owners)
    lines = describe_groups(list(groups.values()), config.train)
    assert len(lines) == 4
    assert "6e-05" in lines[1]


def test_heads_may_learn_faster() -> None:
    step = make_step(small_config(head_lr_factor=10.0))
    assert step.set_learning_rates(0) == pytest.approx(1e-3)
    rates = {group["lr_factor"]: group["lr"] for group in step.optimizer.param_groups}
    assert rates == {1.0: pytest.approx(1e-3), 10.0: pytest.approx(1e-2)}


def test_padding_is_zero_after_normalising_and_noise_is_for_the_global_batch() -> None:
    step = make_step(small_config())
    padded = batch()._replace(sizes=torch.tensor([[64, 64], [40, 64], [64, 30], [10, 10]]))
    found = make_input(padded, step.network, Noise(0, torch.device("cpu"), 4), 8)
    assert not found.images[1, :, 40:].any()
    assert not found.images[2, :, :, 30:].any()
    assert torch.equal(found.images[3, :, :10, :10], normalise(padded.images[3])[:, :10, :10])
    assert found.noise.bases is not None
    for rank in (0, 1):
        half = make_input(
            Batch(*(part.chunk(2)[rank] for part in padded)), step.network, Noise(0, torch.device("cpu"), 4, rank, 2), 8
        )
        assert half.noise.bases is not None
        assert torch.equal(half.noise.bases, found.noise.bases.chunk(2)[rank])
        assert torch.equal(half.images, found.images.chunk(2)[rank])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_loss_falls_and_the_state_goes_on_where_it_was(optimizer: str) -> None:
    config = small_config(optimizer=optimizer, lr=0.05 if optimizer == "sgd" else 2e-3, ema_decay=0.5)
    step = make_step(config)
    losses = []
    for _ in range(8):
        step.step(inputs(step), report=True)
        step.update_average()
        means = step.metrics.take()
        losses.append(float(means["loss"]))
        assert float(means["gradient_norm"]) > 0
    assert losses[-1] < 0.9 * losses[0]
    other = make_step(config)
    load_state_tensors(other, {name: value.clone() for name, value in state_tensors(step).items()})
    for trained in (step, other):
        trained.step(inputs(trained, counter=9))
        trained.update_average()
    first, second = state_tensors(step), state_tensors(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(name.startswith("segmenter_optimizer.") for name in first)
    assert any(name.startswith("average.") for name in first)


def test_accumulated_parts_make_the_gradient_of_the_whole() -> None:
    """Compare without batch norm's dependence on the part: its layers are in evaluation mode."""
    config = small_config()
    gradients = []
    for parts in (1, 2):
        step = make_step(config)
        for module in step.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        step.step(inputs(step, parts))
        gradients.append(torch.cat([p.grad.flatten() for p in step.network.parameters() if p.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[0].norm()


def test_gradients_are_clipped_where_that_is_asked_for() -> None:
    step = make_step(small_config(clip_gradient=1e-3))
    step.step(inputs(step))
    norms = [p.grad.norm() for p in step.network.parameters() if p.grad is not None]
    assert float(torch.stack(norms).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_batch_norm_over_processes_keeps_tensors_and_names_and_refuses_what_stays_apart() -> None:
    network = build_segmenter(small_config())
    before = dict(network.state_dict())
    convert_cross_replica(network)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(value.data_ptr() == before[name].data_ptr() for name, value in after.items())
    kinds = {type(module) for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    assert kinds == {CrossReplicaBatchNorm2d}
    with pytest.raises(ConfigError, match="layers of the kind BatchNorm1d do not average over processes"):
        convert_cross_replica(nn.Sequential(nn.BatchNorm1d(3)))


def test_an_average_follows_the_weights() -> None:
    step = make_step(small_config(ema_decay=0.75))
    before = copy.deepcopy(step.network.state_dict())
    step.step(inputs(step))
    step.update_average()
    after = step.network.state_dict()
    assert step.average is not None
    assert step.sampler is step.average
    for name, value in step.average.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * after[name])
