"""Check that every experiment of ``configs/`` builds, with the expected number of parameters."""

from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from support.paths import ROOT

from hamgan.config import Config, load_config
from hamgan.data import open_source
from hamgan.data.opening import EMBEDDED
from hamgan.networks import build_networks, count_parameters

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
# Counts that others published: the official HamGAN (golden/hamgan_tf/layout.json) and BigGAN-PyTorch. The other two
# change the context block only: BigGAN's attention (46,081 and 11,521) for a Hamburger (2 x 192 x 192 + 2 x 148 x 192 +
# 1 and 2 x 96 x 96 + 1), and none (41,996,931 and 39,443,137) for attention (20,481 and 5,121).
PUBLISHED = {
    "biggan_imagenet128": (70_433_988, 87_982_370),
    "hamgan_baby_imagenet128": (42_640_004, 39_475_906),
    "hamgan_imagenet128": (70_518_468, 87_989_282),
    "hamgan_strong_imagenet128": (42_640_004, 39_475_906),
    "sagan_imagenet128": (42_017_412, 39_448_258),
}
GENERATOR_WIDTHS = {32: [4, 4, 4, 4], 64: [16, 16, 8, 4, 2], 128: [16, 16, 8, 4, 2, 1]}
DISCRIMINATOR_WIDTHS = {32: [4, 4, 4, 4], 64: [1, 2, 4, 8, 16], 128: [1, 2, 4, 8, 16, 16]}


@cache
def embedded_classes(source: str) -> int:
    return len(open_source(source, "train", 32).class_names)


def loaded(path: Path) -> Config:
    config = load_config(path)
    if config.data.source in EMBEDDED:
        config.data.num_classes = embedded_classes(config.data.source)
    return config


def generator_count(config: Config, classes: int) -> int:
    """Count BigGAN's generator by hand: start, blocks of two norms, two 3x3 and a 1x1 convolution, Hamburgers, end."""
    g, resolution = config.generator, config.resolution
    widths = [g.channels * width for width in GENERATOR_WIDTHS[resolution]]
    chunk = g.latent_dim // len(widths) if g.hierarchical else g.latent_dim
    shared = g.conditioning == "shared"
    condition = g.class_embedding_dim + (chunk if g.hierarchical else 0) if shared else classes
    total = classes * g.class_embedding_dim * shared + (chunk + 1) * 16 * widths[0]
    for (inputs, outputs), size in zip(pairwise(widths), (8, 16, 32, 64, 128), strict=False):
        total += 2 * condition * (inputs + outputs) + (9 * inputs + 9 * outputs + inputs + 3) * outputs
        if size in g.context_resolutions:
            latent = g.hamburger.latent_dim or outputs
            total += 2 * latent * outputs + 2 * condition * outputs + 1
    return total + 2 * widths[-1] + 27 * widths[-1] + 3


def discriminator_count(config: Config, classes: int) -> int:
    """Count BigGAN's discriminator by hand; a block that keeps size and width has no 1x1 convolution."""
    d, size = config.discriminator, config.resolution
    widths = [3] + [d.channels * width for width in DISCRIMINATOR_WIDTHS[size]]
    total = 0
    for position, (inputs, outputs) in enumerate(pairwise(widths)):
        down = position < len(widths) - (3 if config.resolution == 32 else 2)
        total += (9 * inputs + 9 * outputs + 2) * outputs
        total += (inputs + 1) * outputs if down or inputs != outputs else 0
        size = size // 2 if down else size
        if down and size in d.context_resolutions:
            total += 2 * (d.hamburger.latent_dim or outputs) * outputs + 1
    return total + widths[-1] + 1 + classes * widths[-1]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_experiment_builds_with_its_parameter_counts(path: Path) -> None:
    config = loaded(path)
    assert config.name == path.stem
    with torch.device("meta"):
        generator, discriminator = build_networks(config)
    counts = count_parameters(generator), count_parameters(discriminator)
    if path.stem in PUBLISHED:
        assert counts == PUBLISHED[path.stem]
    if config.generator.context == config.discriminator.context == "hamburger":
        classes = generator.num_classes
        assert counts == (generator_count(config, classes), discriminator_count(config, classes))


def test_every_experiment_has_the_classes_of_its_data() -> None:
    classes = {path.stem: loaded(path).data.num_classes for path in CONFIGS}
    imagenet = {name: count for name, count in classes.items() if "imagenet" in name}
    assert imagenet == dict.fromkeys([*PUBLISHED, "hamgan_fast_imagenet128"], 1000)
    assert classes["photos"] == classes["photos128"] == 12
    assert classes["cifar10"] == 10
    assert classes["fashion"] == 9


def test_the_papers_experiments_differ_in_batch_and_length_only() -> None:
    """Compare with the paper's appendix: HamGAN-strong 1024 for 1,000,000 steps; HamGAN-baby 256 for 2,000,000."""
    strong, baby = (
        yaml.safe_load((ROOT / f"configs/hamgan_{name}_imagenet128.yaml").read_text()) for name in ("strong", "baby")
    )
    steps = [values["train"].pop("total_kimg") * 1000 / values["train"].pop("batch_size") for values in (strong, baby)]
    assert steps == [1_000_000, 2_000_000]
    assert strong | {"name": ""} == baby | {"name": ""}


def test_cifar10_takes_as_many_epochs_as_the_script_that_it_follows() -> None:
    train = load_config("cifar10").train
    steps = train.total_kimg * 1000 / train.batch_size / train.discriminator_steps
    assert (train.total_kimg / 50, steps, train.ema_start_kimg) == (500, 125_000, 200)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_launch_files_are_read_by_accelerate_and_fit_the_batches(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    processes = load_config_from_file(str(path)).num_processes
    for experiment in CONFIGS:
        train = load_config(experiment).train
        # CIFAR-10's batch of 50 is for one GPU.
        if train.batch_size >= 128:
            assert train.batch_size // train.accumulation % processes == 0, experiment.stem
