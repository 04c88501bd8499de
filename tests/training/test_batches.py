"""Check that batches depend on the seed and the images seen alone: image order, noise by purpose, a share per rank."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.small_runs import small_config
from torch import Tensor

from hamgan.config import Config
from hamgan.data import ImageSource, open_source
from hamgan.networks import build_networks
from hamgan.training.batches import Batches
from hamgan.training.noise import Noise
from hamgan.training.setup import make_accelerator
from hamgan.training.step import GanStep

pytestmark = pytest.mark.usefixtures("new_accelerator")


NOISE = Noise(0, torch.device("cpu"), batch=4)


def set_up(folder: Path, *overrides: str) -> tuple[Config, ImageSource, GanStep]:
    config = small_config(folder, "data.num_classes=12", "train.accumulation=2", *overrides)
    step = GanStep(*build_networks(config), config.train, make_accelerator(config))
    return config, open_source("photos", "train", 32), step


def test_real_images_are_numbers_from_minus_one_to_one_and_go_on_where_a_run_stood(tmp_path: Path) -> None:
    config, source, step = set_up(tmp_path)
    with contextlib.closing(Batches(config, source, NOISE, step, 0)) as batches:
        first, second = batches.for_discriminator(0, 0), batches.for_discriminator(8, 0)
    assert [batch.images.shape for batch in first] == [(4, 3, 32, 32)] * 2
    assert all(-1 <= batch.images.min() < -0.5 < 0.5 < batch.images.max() <= 1 for batch in first)
    with contextlib.closing(Batches(config, source, NOISE, step, 8)) as resumed:
        again = resumed.for_discriminator(8, 0)
    for ours, theirs in zip(second, again, strict=True):
        for name in ("images", "labels", "latents", "fake_labels"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert not torch.equal(first[0].latents, first[1].latents)


def test_ranks_share_a_batch(tmp_path: Path) -> None:
    config, source, step = set_up(tmp_path, "data.flip=true", "train.augment=[color]")
    parts = []
    for noise in (NOISE, replace(NOISE, processes=2), replace(NOISE, processes=2, rank=1)):
        with contextlib.closing(Batches(config, source, noise, step, 0)) as batches:
            parts.append(batches.for_discriminator(0, 0)[0])
    whole, *halves = parts
    for name in ("images", "labels", "latents", "fake_labels"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(half, name) for half in halves])), name
    assert [len(half.augmentation["color"]) for half in halves] == [4, 4]


@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
def test_the_relativistic_loss_pairs_with_the_images_that_d_has_just_seen(tmp_path: Path, loss: str) -> None:
    config, source, step = set_up(tmp_path, f"train.loss={loss}", "train.discriminator_steps=2")
    with contextlib.closing(Batches(config, source, NOISE, step, 0)) as batches:
        batches.for_discriminator(0, 0)
        shown = batches.for_discriminator(0, 1)
        generated = batches.for_generator(0, shown)
    for ours, theirs in zip(generated, shown, strict=True):
        if loss == "hinge":
            assert ours.images is None
            assert ours.image_labels is None
            assert not torch.equal(theirs.fake_labels, theirs.labels)
        else:
            assert ours.images is theirs.images
            assert torch.equal(ours.labels, theirs.labels)
            assert torch.equal(theirs.fake_labels, theirs.labels)
        assert ours.bases is not None
        bases = ours.bases["16"]
        assert isinstance(bases, Tensor)
        assert len(bases) == (4 if loss == "hinge" else 8)
    assert not torch.equal(generated[0].latents, shown[0].latents)
