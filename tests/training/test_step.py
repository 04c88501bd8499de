"""Test the adversarial step: every loss and regulariser trains, the average of G, precision."""

from collections.abc import Callable, Iterator

import pytest
import torch
from accelerate import Accelerator
from support.photo_batches import photo_batch
from support.small_runs import forget_accelerator, small_config
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from hamgan.config import Config
from hamgan.networks import build_networks
from hamgan.training.augment import augment, draw_augmentation
from hamgan.training.inputs import DiscriminatorBatch, GeneratorBatch
from hamgan.training.step import GanStep

MakeStep = Callable[..., GanStep]
BATCH = 4


@pytest.fixture
def make_step(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeStep]:
    """Make steps of the small networks with open Hamburgers (a gate starts at 0 and would hide them)."""

    def make(*overrides: str, precision: str = "no") -> GanStep:
        forget_accelerator()
        config: Config = small_config(tmp_path_factory.mktemp("step"), "data.num_classes=15", *overrides)
        networks = build_networks(config)
        with torch.no_grad():
            for network in networks:
                for block in network.contexts.values():
                    block.get_parameter("gate").fill_(0.5)
        return GanStep(*networks, config.train, Accelerator(cpu=True, mixed_precision=precision))

    yield make
    forget_accelerator()


@pytest.fixture(scope="module")
def real() -> tuple[Tensor, Tensor]:
    return photo_batch(BATCH)


def discriminator_batch(real: tuple[Tensor, Tensor], policy: tuple[str, ...] = (), seed: int = 0) -> DiscriminatorBatch:
    random = torch.Generator().manual_seed(seed)
    z, labels = torch.randn(BATCH, 16, generator=random), torch.randint(15, (BATCH,), generator=random)
    augmentation = draw_augmentation(policy, 2 * BATCH, random)
    return DiscriminatorBatch(*real, z, labels, augmentation=augmentation)


def generator_batch(real: tuple[Tensor, Tensor], paired: bool = False, seed: int = 1) -> GeneratorBatch:
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(BATCH, 16, generator=random)
    return GeneratorBatch(z, real[1], images=real[0] if paired else None, image_labels=real[1] if paired else None)


def train(step: GanStep, real: tuple[Tensor, Tensor], steps: int = 1, policy: tuple[str, ...] = ()) -> None:
    torch.manual_seed(0)  # of the bases, which Hamburgers draw where none are given
    for number in range(steps):
        step.discriminator_step([discriminator_batch(real, policy, 2 * number)], report=True)
        step.generator_step([generator_batch(real, step.config.loss == "relativistic", 2 * number + 1)], report=True)
        step.update_average((number + 1) * BATCH)


def without_gradient(network: nn.Module) -> list[str]:
    return [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(["train.loss=hinge"], id="hinge"),
        pytest.param(["train.loss=non_saturating", "train.r1_gamma=1"], id="non-saturating, R1"),
        pytest.param(["train.loss=wasserstein", "train.lecam=0.3"], id="Wasserstein, LeCam"),
        pytest.param(["train.loss=relativistic", "train.r1_gamma=1", "train.r2_gamma=1"], id="relativistic, R1, R2"),
        pytest.param(["train.mode_seeking=0.1"], id="mode seeking"),
        pytest.param(["discriminator.last_layer=san", "train.top_k=0.5"], id="SAN, top-k"),
        pytest.param(["train.orthogonal_regularisation=1e-4", "generator.context=attention"], id="orthogonal"),
        pytest.param(["generator.hamburger.decomposition=vq", "discriminator.hamburger.decomposition=cd"], id="VQ, CD"),
    ],
)
def test_every_game_is_finite_and_its_gradient_reaches_all_parameters(
    make_step: MakeStep, real: tuple[Tensor, Tensor], overrides: list[str]
) -> None:
    step = make_step(*overrides)
    before = [p.clone() for p in (*step.generator.parameters(), *step.discriminator.parameters())]
    train(step, real, steps=2, policy=("color", "translation", "cutout"))
    # D's last bias is added to real and generated logits alike, so its gradient may cancel exactly.
    assert set(without_gradient(step.discriminator)) <= {"linear.bias"}
    assert without_gradient(step.generator) == []
    after = [*step.generator.parameters(), *step.discriminator.parameters()]
    assert all(torch.isfinite(p).all() for p in after)
    assert sum(torch.equal(old, new) for old, new in zip(before, after, strict=True)) <= 1
    metrics = step.take_metrics()
    assert {"d_loss", "g_loss", "logits_real", "logits_fake", "d_gradient_norm", "g_gradient_norm"} <= set(metrics)
    assert ("r1" in metrics, "r2" in metrics) == (step.config.r1_gamma > 0, step.config.r2_gamma > 0)
    assert ("mode_seeking" in metrics) == (step.config.mode_seeking > 0)
    assert all(torch.isfinite(value) for value in metrics.values())


def test_each_step_moves_its_own_network_only(make_step: MakeStep, real: tuple[Tensor, Tensor]) -> None:
    step = make_step()
    generator = [p.clone() for p in step.generator.parameters()]
    step.discriminator_step([discriminator_batch(real)])
    assert all(torch.equal(old, new) for old, new in zip(generator, step.generator.parameters(), strict=True))
    assert all(p.grad is None for p in step.generator.parameters())
    discriminator = [p.clone() for p in step.discriminator.parameters()]
    gradients = [p.grad.clone() for p in step.discriminator.parameters() if p.grad is not None]
    step.generator_step([generator_batch(real)])
    assert all(torch.equal(old, new) for old, new in zip(discriminator, step.discriminator.parameters(), strict=True))
    after = [p.grad for p in step.discriminator.parameters() if p.grad is not None]
    assert all(torch.equal(old, new) for old, new in zip(gradients, after, strict=True))


def test_r1_is_taken_on_real_images_alone(make_step: MakeStep, real: tuple[Tensor, Tensor]) -> None:
    """Compare with gamma / 2 times the mean of |grad D(real)|^2 over the real images alone."""
    step = make_step("train.r1_gamma=0.8", "discriminator.context=none")
    batch = discriminator_batch(real)
    step.discriminator.eval()  # the same singular vectors in both evaluations
    loss, _ = step._discriminator_loss(batch, report=False)
    adversarial = step.take_metrics()["d_loss"]
    images = real[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(step.discriminator(images, real[1]).sum(), images)
    expected = 0.8 / 2 * gradient.square().sum(dim=(1, 2, 3)).mean()
    assert (loss - adversarial).item() == pytest.approx(expected.item(), rel=1e-4)


def test_penalties_are_taken_before_the_augmentation(make_step: MakeStep, real: tuple[Tensor, Tensor]) -> None:
    """Compare with the gradient that reaches the real images through their augmentation (R3GAN, StyleGAN2-ADA)."""
    step = make_step("train.r1_gamma=0.8", "discriminator.context=none")
    batch = discriminator_batch(real, ("color", "cutout"))
    step.discriminator.eval()
    loss, _ = step._discriminator_loss(batch, report=False)
    adversarial = step.take_metrics()["d_loss"]
    images = real[0].clone().requires_grad_()
    seen = augment(images, {name: values[BATCH:] for name, values in batch.augmentation.items()})
    before, after = torch.autograd.grad(step.discriminator(seen, real[1]).sum(), (images, seen))
    penalties = [0.4 * gradient.square().sum(dim=(1, 2, 3)).mean().item() for gradient in (before, after)]
    assert (loss - adversarial).item() == pytest.approx(penalties[0], rel=1e-4)
    assert abs(penalties[0] - penalties[1]) > 0.01 * penalties[0]


def test_lecam_averages_follow_the_logits(make_step: MakeStep, real: tuple[Tensor, Tensor]) -> None:
    step = make_step("train.lecam=0.1", "train.lecam_decay=0.75")
    expected = torch.zeros(2)
    for number in range(3):
        step.discriminator_step([discriminator_batch(real, seed=number), discriminator_batch(real, seed=number + 9)])
        metrics = step.take_metrics()
        means = torch.stack([metrics["logits_real"], metrics["logits_fake"]])
        expected = means if number == 0 else 0.75 * expected + 0.25 * means
        assert torch.allclose(step.logit_averages, expected)
    assert expected.abs().min() > 1e-3


def test_the_average_copies_until_its_start_and_then_follows(make_step: MakeStep) -> None:
    step = make_step("train.ema_decay=0.75", "train.ema_start_kimg=0.01")
    assert step.average is not None
    assert step.sampler is step.average
    old = {name: value.clone() for name, value in step.average.state_dict().items()}

    def disturb() -> dict[str, Tensor]:
        with torch.no_grad():
            for value in step.generator.state_dict().values():
                value.add_(1.0)
        return {name: value.clone() for name, value in step.generator.state_dict().items()}

    current = disturb()
    step.update_average(9)
    assert all(torch.equal(value, current[name]) for name, value in step.average.state_dict().items())
    old, current = current, disturb()
    step.update_average(10)
    for name, value in step.average.state_dict().items():  # buffers too: batch-norm statistics, singular vectors
        assert torch.allclose(value, 0.75 * old[name] + 0.25 * current[name], atol=1e-6), name


def test_without_a_decay_the_generator_itself_is_sampled(make_step: MakeStep) -> None:
    step = make_step("train.ema_decay=0")
    assert step.average is None
    assert step.sampler is step.generator


def test_metrics_are_means_since_they_were_last_taken(make_step: MakeStep, real: tuple[Tensor, Tensor]) -> None:
    step = make_step()
    losses = []
    for seed in range(2):
        single = make_step()
        torch.manual_seed(0)
        single.discriminator_step([discriminator_batch(real, seed=0)])
        if seed:
            single.take_metrics()
            single.discriminator_step([discriminator_batch(real, seed=1)])
        losses.append(single.take_metrics()["d_loss"])
    torch.manual_seed(0)
    for seed in range(2):
        step.discriminator_step([discriminator_batch(real, seed=seed)])
    assert step.take_metrics()["d_loss"].item() == pytest.approx(sum(map(float, losses)) / 2, rel=1e-6)
    assert step.take_metrics() == {}


def test_bf16_autocast_trains_and_keeps_losses_in_float32(make_step: MakeStep, real: tuple[Tensor, Tensor]) -> None:
    step = make_step("train.r1_gamma=0.1", precision="bf16")
    train(step, real, policy=("color", "translation", "cutout"))
    seen = []
    step.discriminator.register_forward_hook(lambda _, inputs, logits: seen.append((inputs[0].dtype, logits.dtype)))
    step.generator_step([generator_batch(real)])
    assert seen[0][1] == torch.float32
    assert all(p.dtype == torch.float32 for p in step.generator.parameters())
    assert all(torch.isfinite(p).all() for p in (*step.generator.parameters(), *step.discriminator.parameters()))
    assert all(torch.isfinite(value) for value in step.take_metrics().values())


def test_bf16_gradients_point_where_float32_ones_do(make_step: MakeStep, real: tuple[Tensor, Tensor]) -> None:
    gradients: list[Tensor] = []
    for precision in ("no", "bf16"):
        step = make_step(precision=precision)
        train(step, real)
        flat = [p.grad.flatten() for p in step.discriminator.parameters() if p.grad is not None]
        gradients.append(torch.cat(flat))
    full, half = gradients
    assert torch.cosine_similarity(full, half, dim=0) > 0.99


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.r1_gamma=1", "train.r2_gamma=1", "train.loss=relativistic", "train.lecam=0.1"],
        ["train.mode_seeking=0.1", "train.orthogonal_regularisation=1e-4", "train.adam_eps_placement=tensorflow"],
        ["generator.context=attention", "generator.hierarchical=false", "generator.conditioning=per_class"],
        ["generator.hamburger.decomposition=vq", "discriminator.hamburger.decomposition=cd"],
        ["discriminator.last_layer=san", "train.top_k=0.5", "train.lecam=0.1"],
    ],
    ids=["default", "penalties", "regularisers", "attention", "VQ and CD", "SAN, top-k"],
)
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_a_step_reads_no_value_on_the_host(
    make_step: MakeStep, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    """Run steps on tensors without values, which refuse to be read: a host that waits for a value idles the GPU."""
    monkeypatch.setattr(nn.Module, "to", lambda module, *_: module)  # which would swap them
    with FakeTensorMode(allow_non_fake_inputs=True):
        step = make_step(*overrides, precision="bf16")
        images = torch.empty(BATCH, 3, 32, 32), torch.zeros(BATCH, dtype=torch.int64)
        for _ in range(2):
            step.discriminator_step([discriminator_batch(images)])
            step.generator_step([generator_batch(images, paired=step.config.loss == "relativistic")])
            step.update_average(10**9)
        with pytest.raises(DataDependentOutputException):
            float(step.take_metrics()["g_loss"])
