"""Test R1 and R2 by finite differences: the term written out, near the exact penalty, and the batches that it needs."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from support.photo_batches import photo_batch
from support.small_runs import small_config
from torch import Tensor

from hamgan.config import load_config
from hamgan.errors import ConfigError
from hamgan.networks import build_networks
from hamgan.training.augment import augment
from hamgan.training.compilation import describe_compilation
from hamgan.training.inputs import DiscriminatorBatch, Inputs
from hamgan.training.noise import Noise
from hamgan.training.setup import micro_batch
from hamgan.training.step import GanStep
from hamgan.training.variants import select_parameters

pytestmark = pytest.mark.usefixtures("new_accelerator")

BATCH = 8
CPU = torch.device("cpu")
ESTIMATED = ["train.finite_differences.enabled=true", "train.r1_gamma=0.8", "train.r2_gamma=0.3"]


def set_up(folder: Path, *overrides: str, precision: str = "no") -> tuple[GanStep, Inputs, Tensor, Tensor]:
    config = small_config(folder, "data.num_classes=12", *ESTIMATED, *overrides)
    step = GanStep(*build_networks(config), config.train, Accelerator(cpu=True, mixed_precision=precision))
    step.discriminator.eval()  # the same singular vectors in every forward
    inputs = Inputs(config, Noise(0, CPU, BATCH), step.generator, step.discriminator)
    return step, inputs, *photo_batch(BATCH)


def generated(step: GanStep, batch: DiscriminatorBatch) -> Tensor:
    """Return what G draws of a batch in a step, and leave G as it was."""
    running = {name: value.clone() for name, value in step.generator.state_dict().items()}
    with torch.no_grad():
        images: Tensor = step.generator(batch.latents, batch.fake_labels, batch.generator_bases)
    step.generator.load_state_dict(running)
    return images


@pytest.mark.parametrize("stride", [1, 4])
def test_noisy_images_are_compared_with_their_own(tmp_path: Path, stride: int) -> None:
    more = [f"train.finite_differences.stride={stride}", "train.finite_differences.sigma=0.1", "train.augment=[color]"]
    step, inputs, images, labels = set_up(tmp_path, *more)
    batch = inputs.for_discriminator(0, images, labels)
    fake = generated(step, batch)
    loss, _ = step._discriminator_loss(batch, report=False)
    metrics = step.take_metrics()
    bases = batch.bases
    assert bases is not None

    def judged(inside: Tensor, of_labels: Tensor, rows: slice) -> Tensor:
        seen = augment(inside, select_parameters(batch.augmentation, rows))
        own = {size: values[rows] for size, values in bases.items() if isinstance(values, Tensor)}
        logits: Tensor = step.discriminator(seen, of_labels[::stride], own)
        return logits

    expected = metrics["d_loss"]
    parts = {
        "r1": (images, labels, slice(BATCH, 2 * BATCH, stride), 0.8),
        "r2": (fake, batch.fake_labels, slice(0, BATCH, stride), 0.3),
    }
    with torch.no_grad():
        for name, (own_images, own_labels, rows, gamma) in parts.items():
            noise = batch.image_noise[name]
            assert noise.shape == (BATCH // stride, 3, 32, 32)
            chosen = own_images[::stride]
            difference = judged(chosen + 0.1 * noise, own_labels, rows) - judged(chosen, own_labels, rows)
            penalty = difference.square().mean() / 0.1**2 / 2
            assert metrics[name].item() == pytest.approx(penalty.item(), rel=1e-3)
            expected = expected + gamma * penalty
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert not torch.equal(batch.image_noise["r1"], batch.image_noise["r2"])


def test_on_average_it_is_the_exact_penalty(tmp_path: Path) -> None:
    """Compare means over 8 images and 400 draws: the error of the mean is 2.5 % (a chi-squared value each)."""
    wide = ["discriminator.channels=8", "discriminator.context=attention"]
    step, inputs, images, labels = set_up(tmp_path, *wide)
    batch = inputs.for_discriminator(0, images, labels)
    estimates = []
    for counter in range(400):
        batch.image_noise = inputs.for_discriminator(counter, images, labels).image_noise
        with torch.no_grad():
            step._discriminator_loss(batch, report=False)
        metrics = step.take_metrics()
        estimates.append(metrics["r1"])
    seen = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(step.discriminator(seen, labels).sum(), seen)
    exact = gradient.square().sum(dim=(1, 2, 3)).mean().item() / 2
    assert exact > 1e-3
    assert torch.stack(estimates).mean().item() == pytest.approx(exact, rel=0.1)


def test_d_is_compiled_with_it(tmp_path: Path) -> None:
    train = small_config(tmp_path, *ESTIMATED, "train.compile=true").train
    assert describe_compilation(train, CPU).startswith("G and D")
    train.finite_differences.enabled = False
    assert describe_compilation(train, CPU).startswith("G, ")


def test_ranks_have_the_noise_of_their_images(tmp_path: Path) -> None:
    _, inputs, _, _ = set_up(tmp_path)
    whole = inputs.noise.images("r1", 8, 32, stride=2)
    parts = [Noise(0, CPU, BATCH, rank, 2).images("r1", 8, 32, stride=2) for rank in range(2)]
    assert torch.equal(torch.cat(parts), whole)


def test_what_does_not_fit_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"estimates R1 and R2; give train\.r1_gamma or train\.r2_gamma"):
        load_config(None, ["train.finite_differences.enabled=true"])
    with pytest.raises(ConfigError, match=r"finite_differences\.sigma is 0\.0; it must be positive"):
        load_config(None, [*ESTIMATED, "train.finite_differences.sigma=0"])
    config = small_config(tmp_path, *ESTIMATED, "train.finite_differences.stride=3")
    with pytest.raises(
        ConfigError, match=r"stride 3 does not divide the 8 images of each of 1 .*, or train.batch_size 6"
    ):
        micro_batch(config, 1)
