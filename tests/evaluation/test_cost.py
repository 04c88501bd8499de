"""Check that the counted arithmetic of evaluations is that of real steps and real extractors."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from support.paths import ROOT
from support.small_runs import forget_accelerator, small_config

from benchmarks.networks import load_ours, weights_file
from benchmarks.random_weights import CLIP_SIZES, random_dinov2, save_random_clip
from benchmarks.steps import make_workload
from benchmarks.timing import count_flops
from hamgan.config import load_config
from hamgan.evaluation import load_extractor
from hamgan.evaluation.features import dinov2
from hamgan.evaluation.studies.cost import BATCH, EXTRACTOR_FLOPS, count_flops_per_image, evaluation_share

FINITE_DIFFERENCES = ("train.finite_differences.enabled=true", "train.finite_differences.stride=4")


@pytest.mark.parametrize("name", ["hamgan_imagenet128", "hamgan_baby_imagenet128"])
def test_evaluations_stay_below_a_tenth_of_an_imagenet_run(name: str) -> None:
    """Check two configurations; the other ImageNet configurations have the networks or the intervals of these."""
    assert 0.0005 < evaluation_share(load_config(ROOT / f"configs/{name}.yaml")) < 0.1


@pytest.mark.parametrize(
    "options",
    [
        [],
        [f"train.consistency.{term}=1" for term in ("real", "fake", "latent", "spread")],
        ["train.loss=relativistic", "train.r1_gamma=1", "train.r2_gamma=1", *FINITE_DIFFERENCES],
    ],
)
def test_counted_flops_are_those_of_a_real_step(tmp_path: Path, options: list[str]) -> None:
    config = small_config(tmp_path, "data.num_classes=5", *options)
    forget_accelerator()
    workload = make_workload(config, "fast", BATCH, Accelerator(cpu=True))
    real = count_flops(workload) / BATCH
    assert count_flops_per_image(config)[1] == pytest.approx(real, rel=0.02)
    twice = replace(config, train=replace(config.train, discriminator_steps=2))
    assert count_flops_per_image(twice)[1] < count_flops_per_image(config)[1]


def test_flops_of_an_extractor_are_those_of_a_real_image() -> None:
    extractor = load_extractor("efficientnet-lite0", device="cpu")
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert count_flops(lambda: extractor(image)) == EXTRACTOR_FLOPS["efficientnet-lite0"]


@pytest.mark.parametrize("name", ["dinov2-vit-l-14", *CLIP_SIZES])
def test_flops_of_transformers_are_those_of_real_images(name: str, tmp_path: Path) -> None:
    """Count with one block and with two: all but the last, which sees the class token alone, cost the same."""
    width, depth = CLIP_SIZES.get(name, (dinov2.WIDTH, dinov2.DEPTH))
    counts = []
    for blocks in (1, 2):
        if name in CLIP_SIZES:
            save_random_clip(weights_file(name, tmp_path), name, width, blocks)
        else:
            torch.save(random_dinov2(blocks).state_dict(), weights_file(name, tmp_path))
        extractor = load_ours(name, "native", tmp_path)
        counts.append(count_flops(partial(extractor, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))))
    assert counts[0] + (depth - 1) * (counts[1] - counts[0]) == EXTRACTOR_FLOPS[name]


def test_an_evaluation_while_training_costs_what_all_of_its_extractors_do(tmp_path: Path) -> None:
    settings = ["data.num_classes=5", "eval.every_kimg=1", "eval.num_samples=10"]
    plain, both = (small_config(tmp_path, *settings, f"eval.metrics={names}") for names in ("[fid]", "[fid,cmmd]"))
    ratios = [share / (1 - share) for share in map(evaluation_share, (plain, both))]
    added = EXTRACTOR_FLOPS["clip-vit-l-14-336"] * plain.eval.num_samples / 1000
    assert (ratios[1] - ratios[0]) * count_flops_per_image(plain)[1] == pytest.approx(added)
