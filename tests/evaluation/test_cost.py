"""Check that the counted arithmetic of evaluations is that of real steps and real extractors."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from support.paths import ROOT
from support.small_runs import forget_accelerator, small_config

from benchmarks.steps import make_workload
from benchmarks.timing import count_flops
from hamgan.config import load_config
from hamgan.evaluation import load_extractor
from hamgan.evaluation.studies.cost import BATCH, EXTRACTOR_FLOPS, count_flops_per_image, evaluation_share


@pytest.mark.parametrize("name", ["hamgan_imagenet128", "hamgan_baby_imagenet128"])
def test_evaluations_stay_below_a_tenth_of_an_imagenet_run(name: str) -> None:
    """Check two configurations; the other ImageNet configurations have the networks or the intervals of these."""
    assert 0.0005 < evaluation_share(load_config(ROOT / f"configs/{name}.yaml")) < 0.1


def test_counted_flops_are_those_of_a_real_step(tmp_path: Path) -> None:
    config = small_config(tmp_path, "data.num_classes=5")
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
