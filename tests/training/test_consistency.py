"""Test consistency regularisation (CR, bCR, zCR) against the terms written out with separate forwards."""

from collections.abc import Callable, Iterator

import pytest
import torch
from accelerate import Accelerator
from support.photo_batches import photo_batch
from support.small_runs import forget_accelerator, small_config
from torch import Tensor

from hamgan.config import load_config
from hamgan.errors import ConfigError
from hamgan.networks import build_networks
from hamgan.training.augment import augment
from hamgan.training.inputs import DiscriminatorBatch, GeneratorBatch, Inputs
from hamgan.training.noise import Noise
from hamgan.training.step import GanStep
from hamgan.training.variants import select_parameters

Drawn = tuple[GanStep, DiscriminatorBatch, GeneratorBatch]
BATCH = 4
FAKE, REAL = slice(0, BATCH), slice(BATCH, 2 * BATCH)


@pytest.fixture
def draw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Drawn]]:
    """Draw a step on photographs, with singular vectors that rest, so that forwards can be repeated."""

    def make(*overrides: str) -> Drawn:
        forget_accelerator()
        config = small_config(tmp_path_factory.mktemp("step"), "data.num_classes=12", *overrides)
        networks = build_networks(config)
        with torch.no_grad():
            for network in networks:
                for block in network.contexts.values():
                    block.get_parameter("gate").fill_(0.5)  # a closed one would hide the bases
        step = GanStep(*networks, config.train, Accelerator(cpu=True))
        step.discriminator.eval()
        inputs = Inputs(config, Noise(0, torch.device("cpu"), BATCH), *networks)
        real = photo_batch(BATCH)
        return step, inputs.for_discriminator(8, *real), inputs.for_generator(8, *real)

    yield make
    forget_accelerator()


def judged(step: GanStep, batch: DiscriminatorBatch, images: Tensor, rows: slice) -> Tensor:
    """Return D's logits of images that take the place of some of the batch's, in a forward of their own."""
    labels = torch.cat([batch.fake_labels, batch.labels])[rows]
    assert batch.bases is not None
    bases = {size: values[rows] for size, values in batch.bases.items() if isinstance(values, Tensor)}
    logits: Tensor = step.discriminator(images, labels, bases)
    return logits


def loss_of_discriminator(step: GanStep, batch: DiscriminatorBatch) -> tuple[Tensor, dict[str, Tensor]]:
    loss, _ = step._discriminator_loss(batch, report=False)
    return loss, step.take_metrics()


@pytest.mark.parametrize("policy", ["[]", "[color,cutout]"])
@pytest.mark.parametrize(
    ("term", "weights"),
    [("cr_real", "real=10"), ("cr_fake", "fake=7"), ("both", "real=10 fake=7")],
)
def test_images_are_compared_with_transformed_copies(
    draw: Callable[..., Drawn], term: str, weights: str, policy: str
) -> None:
    step, batch, _ = draw(*(f"train.consistency.{item}" for item in weights.split()), f"train.augment={policy}")
    assert set(batch.transformation) == {"flip", "shift"}
    running = {name: value.clone() for name, value in step.generator.state_dict().items()}
    loss, metrics = loss_of_discriminator(step, batch)
    step.generator.load_state_dict(running)
    with torch.no_grad():
        fake = step.generator(batch.latents, batch.fake_labels, batch.generator_bases)
        seen = augment(torch.cat([fake, batch.images]), batch.augmentation)
        expected = metrics["d_loss"]
        for name, rows, weight in (("cr_real", REAL, 10), ("cr_fake", FAKE, 7)):
            if term in (name, "both"):
                copies = augment(seen[rows], select_parameters(batch.transformation, rows))
                difference = judged(step, batch, seen[rows], rows) - judged(step, batch, copies, rows)
                assert difference.abs().min() > 1e-3
                assert metrics[name].item() == pytest.approx(difference.square().mean().item(), rel=1e-3)
                expected = expected + weight * difference.square().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_generated_images_are_compared_with_those_of_latents_nearby(draw: Callable[..., Drawn]) -> None:
    step, batch, _ = draw("train.consistency.latent=5", "train.consistency.sigma=0.5", "train.augment=[color]")
    assert batch.nearby is not None
    assert (batch.nearby - batch.latents).std().item() == pytest.approx(0.5, rel=0.2)
    running = {name: value.clone() for name, value in step.generator.state_dict().items()}
    loss, metrics = loss_of_discriminator(step, batch)
    step.generator.load_state_dict(running)
    bases = batch.generator_bases
    assert bases is not None
    with torch.no_grad():
        twice = {size: torch.cat([values, values]) for size, values in bases.items() if isinstance(values, Tensor)}
        both = step.generator(torch.cat([batch.latents, batch.nearby]), batch.fake_labels.repeat(2), twice)
        seen = [augment(images, select_parameters(batch.augmentation, FAKE)) for images in both.chunk(2)]
        first, second = (judged(step, batch, images, FAKE) for images in seen)
    expected = (first - second).square().mean().item()
    assert expected > 1e-4
    assert metrics["zcr"].item() == pytest.approx(expected, rel=1e-3)
    assert (loss - metrics["d_loss"]).item() == pytest.approx(5 * expected, rel=1e-2)


def test_g_is_to_take_latents_nearby_apart(draw: Callable[..., Drawn]) -> None:
    step, _, batch = draw("train.consistency.spread=0.5", "train.consistency.sigma=0.5")
    running = {name: value.clone() for name, value in step.generator.state_dict().items()}
    loss = step._generator_loss(batch)
    step.generator.load_state_dict(running)
    metrics = step.take_metrics()
    assert batch.generator_bases is not None
    assert batch.nearby is not None
    bases = {k: torch.cat([v, v]) for k, v in batch.generator_bases.items() if isinstance(v, Tensor)}
    both = step.generator(torch.cat([batch.latents, batch.nearby]), batch.labels.repeat(2), bases)
    first, second = both.chunk(2)
    logits = step.discriminator(first, batch.labels, batch.bases)
    spread = (first - second).square().mean()
    assert spread.item() > 1e-3
    assert metrics["latent_spread"].item() == pytest.approx(spread.item(), rel=1e-4)
    assert loss.item() == pytest.approx((-logits.mean() - 0.5 * spread).item(), rel=1e-4)


def test_a_copy_that_is_not_changed_is_judged_alike(draw: Callable[..., Drawn]) -> None:
    """Check that bases and labels go with an image: otherwise an equal copy would differ."""
    for more in ([], ["discriminator.hamburger.version=v2+", "discriminator.hamburger.dual=true"]):
        step, batch, _ = draw("train.consistency.real=10", "train.consistency.fake=10", *more)
        batch.transformation = {"flip": torch.ones(2 * BATCH, 1)}
        _, metrics = loss_of_discriminator(step, batch)
        assert max(metrics["cr_real"], metrics["cr_fake"]) < 1e-8


def test_all_terms_together_train_both_networks(draw: Callable[..., Drawn]) -> None:
    weights = ["real=10", "fake=10", "latent=5", "spread=0.5", "transform=[flip,shift,color]"]
    step, batch, made = draw(*(f"train.consistency.{item}" for item in weights), "train.r1_gamma=1")
    step.discriminator_step([batch, batch], report=True)
    step.generator_step([made, made], report=True)
    metrics = step.take_metrics()
    assert {"cr_real", "cr_fake", "zcr", "latent_spread", "r1"} <= set(metrics)
    assert all(torch.isfinite(value) for value in metrics.values())
    for network in (step.generator, step.discriminator):
        without = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]
        assert set(without) <= {"linear.bias"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["real=-1"], r"consistency\.real is -1\.0; allowed: 0 and above"),
        (["sigma=0"], r"consistency\.sigma is 0\.0; it must be positive"),
        (["real=1", "transform=[]"], r"consistency\.transform is empty, so a copy would equal its image"),
    ],
)
def test_values_that_make_no_sense_get_a_sentence(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [f"train.consistency.{item}" for item in overrides])
