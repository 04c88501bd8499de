"""Test losses and regularisers against their formulas in NumPy, finite differences and autograd."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hamgan.config import load_config
from hamgan.networks import Discriminator, build_networks
from hamgan.networks.spectral_norm import SpectralWeight
from hamgan.training.losses import discriminator_loss, generator_loss, top_k_weights
from hamgan.training.regularisers import add_orthogonal_gradient, gradient_penalty, lecam, mode_seeking

REAL, FAKE = np.array([2.0, 0.5, -3.0]), np.array([-2.0, 0.25, 1.5])


def softplus(x: np.ndarray) -> np.ndarray:
    logarithms: np.ndarray = np.log1p(np.exp(x))
    return logarithms


@pytest.mark.parametrize(
    ("kind", "of_discriminator", "of_generator"),
    [
        # By hand: (0 + 0.5 + 4) / 3 + (0 + 1.25 + 2.5) / 3 and -(-2 + 0.25 + 1.5) / 3.
        ("hinge", 2.75, 0.25 / 3),
        ("wasserstein", -0.25 / 3 + 0.5 / 3, 0.25 / 3),
        ("non_saturating", softplus(-REAL).mean() + softplus(FAKE).mean(), softplus(-FAKE).mean()),
        ("relativistic", softplus(FAKE - REAL).mean(), softplus(REAL - FAKE).mean()),
    ],
)
def test_losses_have_the_values_of_their_formulas(kind: str, of_discriminator: float, of_generator: float) -> None:
    real, fake = torch.from_numpy(REAL), torch.from_numpy(FAKE)
    assert discriminator_loss(kind, real, fake).item() == pytest.approx(of_discriminator, abs=1e-12)
    assert generator_loss(kind, fake, real).item() == pytest.approx(of_generator, abs=1e-12)


@pytest.mark.parametrize("kind", ["hinge", "non_saturating", "wasserstein", "relativistic"])
def test_with_top_k_g_learns_from_the_images_that_d_likes_best(kind: str) -> None:
    fake, real = torch.tensor([0.5, -3.0, 2.0, 0.0], requires_grad=True), torch.tensor([1.0, 0.0, -1.0, 2.0])
    loss = generator_loss(kind, fake, real, top_k_weights(fake, 0.5))
    best = torch.tensor([0, 2])  # of 0.5 and 2.0
    assert loss.item() == pytest.approx(generator_loss(kind, fake[best], real[best]).item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, fake)
    assert gradient.ne(0).tolist() == [True, False, True, False]
    assert top_k_weights(fake, 0.01).tolist() == [0.0, 0.0, 4.0, 0.0]  # one is left at least


@pytest.mark.parametrize("kind", ["hinge", "non_saturating", "wasserstein", "relativistic"])
def test_losses_pull_real_logits_up_and_generated_ones_down(kind: str) -> None:
    real, fake = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    discriminator_loss(kind, real, fake).backward()
    assert real.grad is not None
    assert fake.grad is not None
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()
    (pulled,) = torch.autograd.grad(generator_loss(kind, fake, real), fake)
    assert (pulled < 0).all()


def test_softplus_losses_stay_finite_for_huge_logits() -> None:
    huge = torch.tensor([1e4, -1e4])
    for kind in ("non_saturating", "relativistic"):
        assert torch.isfinite(discriminator_loss(kind, huge, -huge))
        assert torch.isfinite(generator_loss(kind, huge, -huge))


def test_an_unknown_loss_and_a_relativistic_one_without_real_logits_are_errors() -> None:
    logits = torch.zeros(2)
    with pytest.raises(ValueError, match="unknown loss 'hinges'"):
        discriminator_loss("hinges", logits, logits)
    with pytest.raises(ValueError, match="no real logits for the relativistic one"):
        generator_loss("relativistic", logits)


def test_the_gradient_penalty_is_half_the_mean_squared_norm_per_image() -> None:
    random = np.random.default_rng(0)
    images, weight = random.normal(size=(4, 3, 2, 2)), random.normal(size=(3, 2, 2))
    x = torch.from_numpy(images).requires_grad_()
    # D(x) = <w, x>^2 has the gradient 2 <w, x> w.
    logits = (x * torch.from_numpy(weight)).sum(dim=(1, 2, 3)).square()
    inner = (images * weight).sum(axis=(1, 2, 3))
    expected = (4 * inner**2 * (weight**2).sum()).mean() / 2
    assert gradient_penalty(logits, x).item() == pytest.approx(expected, rel=1e-12)


def small_discriminator(*overrides: str) -> Discriminator:
    small = ["resolution=32", "generator.latent_dim=16", "generator.context=none", "data.num_classes=3"]
    sizes = ["discriminator.channels=2", "discriminator.context_resolutions=[8]", "discriminator.hamburger.rank=2"]
    network = build_networks(load_config(None, [*small, *sizes, *overrides]))[1].double()
    with torch.no_grad():
        for block in network.contexts.values():
            block.get_parameter("gate").fill_(0.7)
    return network.eval()


def converge(network: Discriminator) -> None:
    """Run the power iterations to their end: there, sigma does not feel the vectors, which autograd holds constant."""
    for module in network.modules():
        if isinstance(module, SpectralWeight):
            module.train()
            for _ in range(100):
                module.effective_weight()
            module.eval()


def penalty(network: Discriminator, images: Tensor, labels: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    return gradient_penalty(network(images, labels), images)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(["discriminator.context=none"], id="none"),
        pytest.param(["discriminator.context=attention"], id="attention"),
        pytest.param(["discriminator.hamburger.gradient=unrolled"], id="unrolled Hamburger"),
    ],
)
def test_the_penalty_of_a_discriminator_has_the_gradient_of_finite_differences(overrides: list[str]) -> None:
    """Check second derivatives through merged kernels, closed-form spectral norm and context blocks, in all weights."""
    torch.manual_seed(0)
    network = small_discriminator(*overrides)
    converge(network)
    images, labels = torch.rand(2, 3, 32, 32, dtype=torch.float64) * 2 - 1, torch.tensor([0, 2])
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(penalty(network, images, labels), parameters, allow_unused=True)
    steps = [torch.randn_like(parameter) for parameter in parameters]
    slope = sum(float((g * step).sum()) for g, step in zip(gradients, steps, strict=True) if g is not None)
    values = []
    for sign in (1, -2):  # a step so small that no ReLU switches
        torch._foreach_add_([p.data for p in parameters], steps, alpha=sign * 1e-8)
        values.append(penalty(network, images, labels).item())
    assert slope == pytest.approx((values[0] - values[1]) / 2e-8, rel=1e-4)
    assert abs(slope) > 1e-3


def test_the_penalty_sees_the_same_second_derivatives_in_either_memory_format() -> None:
    """Compare the Hamburger's own backward for channels-last maps with that of the plain form."""
    torch.manual_seed(0)
    block = small_discriminator().contexts["8"]
    x = torch.rand(2, 8, 8, 8, dtype=torch.float64)
    bases = torch.rand(2, 8, 2, dtype=torch.float64)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = x.contiguous(memory_format=layout).requires_grad_()
        (first,) = torch.autograd.grad(block(leaf, None, bases).square().sum(), leaf, create_graph=True)
        results.append([first, *torch.autograd.grad(first.square().sum(), list(block.parameters()))])
    for plain, ours in zip(*results, strict=True):
        assert torch.allclose(plain, ours, rtol=1e-9, atol=1e-12)


def test_lecam_has_the_value_of_the_official_formula() -> None:
    """Compare with mean(relu(D(real) - a_fake)^2) + mean(relu(a_real - D(fake))^2), as the authors' code has it."""
    expected = np.mean(np.maximum(REAL - 0.4, 0) ** 2) + np.mean(np.maximum(1.0 - FAKE, 0) ** 2)
    averages = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    value = lecam(torch.from_numpy(REAL), torch.from_numpy(FAKE), *averages)
    assert value.item() == pytest.approx(expected, abs=1e-12)


def test_mode_seeking_is_the_inverse_of_how_far_images_of_a_pair_are_apart() -> None:
    random = np.random.default_rng(0)
    images, latents = random.uniform(-1, 1, (4, 3, 2, 2)), random.normal(size=(4, 5))
    quotients = [np.abs(images[i] - images[i + 1]).mean() / np.abs(latents[i] - latents[i + 1]).mean() for i in (0, 2)]
    value = mode_seeking(torch.from_numpy(images), torch.from_numpy(latents))
    assert value.item() == pytest.approx(np.mean([1 / (quotient + 1e-3) for quotient in quotients]), rel=1e-6)


def test_mode_seeking_drives_images_of_a_pair_apart_and_survives_equal_ones() -> None:
    images = torch.tensor([0.1, -0.1, 0.3, 0.3]).view(4, 1, 1, 1).expand(4, 3, 2, 2).clone().requires_grad_()
    value = mode_seeking(images, torch.tensor([[0.0], [1.0], [2.0], [3.0]]))
    (gradient,) = torch.autograd.grad(value, images)
    assert value.item() < 1 / (2 * 1e-3) + 10
    assert bool((gradient[0] < 0).all())  # descent raises the larger value
    assert bool((gradient[1] > 0).all())
    assert bool(gradient.isfinite().all())


def test_the_orthogonal_gradient_is_that_of_half_the_squared_off_diagonal() -> None:
    """Compare 2 s (W W^T * (1 - I)) W with the gradient of s / 2 * |W W^T * (1 - I)|^2 over the rows of W."""
    torch.manual_seed(0)
    conv, linear, embedding = nn.Conv2d(3, 5, 3), nn.Linear(4, 6), nn.Embedding(7, 2)
    network = nn.Sequential(conv, linear, embedding).double()
    conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    add_orthogonal_gradient(network, 1e-2, exclude={id(embedding.weight)})
    for module in (conv, linear):
        matrix = module.weight.flatten(1)
        gram = matrix @ matrix.mT
        regulariser = 1e-2 / 2 * (gram - torch.diag(torch.diagonal(gram))).square().sum()
        (expected,) = torch.autograd.grad(regulariser, module.weight)
        assert expected.abs().max() > 1e-4
        assert module.weight.grad is not None
        assert torch.allclose(module.weight.grad, 1 + expected, atol=1e-12)
        assert module.bias is not None
        assert module.bias.grad is not None
        assert module.bias.grad.eq(1).all()
    assert embedding.weight.grad is not None
    assert embedding.weight.grad.eq(1).all()
