"""Test schedules against their formulas, through runs, and the sentences for those that cannot be."""

import math
from pathlib import Path

import pytest
import torch
from support.small_runs import assert_same_state, last_state, rows, run_small, small_config

from hamgan.config import TrainConfig, load_config
from hamgan.config.schedules import Schedule, parse_schedule
from hamgan.errors import ConfigError
from hamgan.networks import build_networks
from hamgan.training.augment import NEUTRAL, SIZES, augment, draw_augmentation
from hamgan.training.inputs import Inputs
from hamgan.training.noise import Noise
from hamgan.training.schedules import settings_at

pytestmark = pytest.mark.usefixtures("new_accelerator")


def test_values_go_along_a_line_or_half_a_cosine_and_stay() -> None:
    line, wave = parse_schedule("linear to 3 by 2", "x"), parse_schedule("cosine to 3 by 2", "x")
    for images in (0, 300, 1000, 1700, 2000, 5000):
        passed = min(images / 2000, 1)
        assert line.value(1.0, images, 10) == pytest.approx(1 + 2 * passed)
        assert wave.value(1.0, images, 10) == pytest.approx(2 - math.cos(math.pi * passed))
    assert parse_schedule("linear", "x") == Schedule("linear", 0.0, None)
    assert parse_schedule("linear", "x").value(1.0, 2500, 10) == 0.75
    assert parse_schedule("constant", "x").value(0.7, 10**9, 10) == 0.7


def test_shares_multiply_and_the_others_replace() -> None:
    train = TrainConfig(
        total_kimg=1,
        r1_gamma=4,
        r2_gamma=2,
        beta2=0.9,
        augment=["color"],
        augment_probability=0,
        lr_schedule="linear",
        gamma_schedule="cosine to 0.1",
        beta2_schedule="cosine to 0.99",
        augment_schedule="linear to 0.4",
        top_k_schedule="linear to 0.5 by 0.25",
    )
    half = settings_at(train, 500, lr_factor=0.5)
    assert (half.generator_lr, half.discriminator_lr) == (0.25 * 1e-4, 0.25 * 4e-4)
    assert (half.r1_gamma, half.r2_gamma) == pytest.approx((0.55 * 4, 0.55 * 2))
    assert (half.beta2, half.augment_probability, half.top_k) == pytest.approx((0.945, 0.2, 0.5))
    falling = [settings_at(train, images).generator_lr for images in (0, 250, 1000, 1100)]
    assert falling == pytest.approx([1e-4, 0.75e-4, 0, 0], abs=1e-18)
    assert settings_at(TrainConfig(), 12345) == TrainConfig()


def test_learning_rates_warm_up_from_a_batch_on() -> None:
    train = TrainConfig(batch_size=100, lr_warmup_kimg=1, generator_lr=1.0)
    assert [settings_at(train, images).generator_lr for images in (0, 400, 900, 5000)] == [0.1, 0.5, 1.0, 1.0]


MOVING = ["train.lr_schedule=cosine to 0.25 by 0.04", "train.beta2_schedule=linear to 0.5 by 0.04", "train.r1_gamma=1"]
MOVING += ["train.gamma_schedule=linear to 0.5 by 0.04", "train.top_k_schedule=linear to 0.5 by 0.04"]
MOVING += ["train.augment=[color]", "train.augment_schedule=linear to 0.5 by 0.04", "train.loss=non_saturating"]


def test_a_run_follows_its_schedules_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = run_small(tmp_path / "whole", *MOVING, "train.total_kimg=0.032")
    run_small(tmp_path / "parts", *MOVING, "train.total_kimg=0.016")
    parts = run_small(tmp_path / "parts", *MOVING, "train.total_kimg=0.032")
    assert rows(whole) == rows(parts)
    assert_same_state(last_state(whole), last_state(parts))
    last = rows(whole)[-1]  # of the step from 0.024 kimg on
    assert last["g_lr"] == pytest.approx(1e-4 * (0.25 + 0.75 * (1 + math.cos(math.pi * 0.6)) / 2))
    assert [last[name] for name in ("beta2", "r1_gamma", "top_k", "augment_probability")] == pytest.approx(
        [0.999 + 0.6 * (0.5 - 0.999), 0.7, 0.7, 0.7]
    )


def test_a_step_takes_the_values_of_now(tmp_path: Path) -> None:
    """Check that optimisers and losses have them: a row only tells what should be."""
    ends = {}
    for name, options in {
        "plain": [],
        "beta2": ["train.beta2_schedule=linear to 0.5 by 0.016"],
        "gamma": ["train.gamma_schedule=linear to 0.5 by 0.016"],
        "top-k": ["train.top_k_schedule=linear to 0.5 by 0.016"],
        "augment": ["train.augment_schedule=linear to 0 by 0.016"],
        "lr": ["train.lr_schedule=linear to 0.5 by 0.016"],
    }.items():
        run = run_small(
            tmp_path / name, "train.r1_gamma=1", "train.augment=[cutout]", "train.total_kimg=0.024", *options
        )
        ends[name] = last_state(run)
    for name, end in ends.items():
        if name != "plain":
            key = "generator.linear.weight"
            assert not torch.equal(end[key], ends["plain"][key]), name


def test_images_are_augmented_with_a_probability(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    policy = list(SIZES)
    drawn = draw_augmentation(policy, 2000, random, probability=0.25)
    spared = {name: (values == NEUTRAL[name]).all(dim=1) for name, values in drawn.items()}
    for rows_spared in spared.values():
        assert rows_spared.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert (spared["color"] & spared["cutout"]).float().mean().item() == pytest.approx(0.75**2, abs=0.03)
    images = torch.rand(8, 3, 16, 16)
    neutral = draw_augmentation(policy, 8, random, probability=0.0)
    assert torch.allclose(augment(images, neutral), images, atol=1e-6)
    config = small_config(
        tmp_path, "data.num_classes=3", "train.augment=[cutout]", "train.augment_schedule=linear to 0 by 1"
    )
    inputs = Inputs(config, Noise(0, torch.device("cpu"), 8), *build_networks(config))
    share = [
        (inputs.for_discriminator(counter, images, torch.zeros(8).long()).augmentation["cutout"] < 1).float().mean()
        for counter in (0, 1000)
    ]
    assert share == [1.0, 0.0]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr_schedule=cosin", r"lr_schedule is 'cosin'.*cosine.*write constant, or linear or cosine"),
        ("lr_schedule=cosine 0.1", r"lr_schedule is 'cosine 0\.1'; write constant"),
        ("lr_schedule=linear to x", r"'linear to x', in which not every value is a number"),
        ("lr_schedule=linear by 0", r"'linear by 0'; a schedule takes more than 0 kimg"),
        ("lr_schedule=constant to 1", r"constant leads nowhere"),
        ("lr_schedule=linear to -1", r"lr_schedule ends at -1; allowed are .* generator_lr and discriminator_lr can"),
        ("beta2_schedule=linear to 1", r"beta2_schedule ends at 1;"),
        ("top_k_schedule=linear", r"top_k_schedule ends at 0;"),
        ("gamma_schedule=linear", r"gamma_schedule has no effect without train\.r1_gamma or r2_gamma"),
        ("augment_schedule=linear to 0.4", r"augment_schedule has no effect without train\.augment"),
        ("augment_probability=1.5", r"augment_probability is 1\.5; allowed: 0 to 1"),
        ("lr_warmup_kimg=-1", r"lr_warmup_kimg is -1\.0; allowed: 0 and above"),
    ],
)
def test_a_schedule_that_cannot_be_gets_a_sentence(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [f"train.{override}"])
