"""The phases of a training step, each by itself."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from hamgan.benchmarks.steps import Workload, draw_batches
from hamgan.benchmarks.timing import Work
from hamgan.config import Config
from hamgan.layers import SpectralWeight
from hamgan.losses import discriminator_loss

SPECTRAL_NORM = "spectral norm (inside the networks' phases)"


def phases(config: Config, workload: Workload) -> dict[str, Work]:
    """What a step does one after the other, on weights that stay as they are; the last one is part of the others."""
    step, batch = workload.step, workload.discriminator_batch
    with torch.no_grad():
        fake = step.generator(batch.latents, batch.fake_labels, batch.generator_bases)
    images, labels = torch.cat([fake, batch.images]), torch.cat([batch.fake_labels, batch.labels])

    def fakes() -> None:
        with torch.no_grad(), step.accelerator.autocast():
            step.generator(batch.latents, batch.fake_labels, batch.generator_bases)

    def discriminator() -> None:
        step.discriminator.requires_grad_(True)
        with step.accelerator.autocast():
            logits = step.discriminator(images, labels, batch.bases)
        logits_fake, logits_real = logits.chunk(2)
        step.accelerator.backward(discriminator_loss(step.train.loss, logits_real, logits_fake))
        step.discriminator_optimizer.zero_grad()

    def generator() -> None:
        step.discriminator.requires_grad_(False)
        step.accelerator.backward(step._generator_loss(workload.generator_batch))
        step.generator_optimizer.zero_grad()

    return {
        "noise and images": lambda: draw_batches(config, step, len(batch.images)),
        "generated images for D": fakes,
        "D forward and backward": discriminator,
        "G and D forward and backward": generator,
        "both Adams": _optimisers(workload),
        "average of G": workload.average,
        SPECTRAL_NORM: spectral_norm(step.generator, step.discriminator),
    }


def _optimisers(workload: Workload) -> Work:
    pairs = [
        (workload.step.generator_optimizer, workload.step.generator),
        (workload.step.discriminator_optimizer, workload.step.discriminator),
    ]
    gradients = [[torch.zeros_like(p) for p in network.parameters()] for _, network in pairs]

    def work() -> None:
        for (optimizer, network), values in zip(pairs, gradients, strict=True):
            for parameter, gradient in zip(network.parameters(), values, strict=True):
                parameter.grad = gradient
            optimizer.step()
            optimizer.zero_grad()

    return work


def spectral_norm(generator: nn.Module, discriminator: nn.Module) -> Work:
    """Every normalisation of one step: G twice, once with backward; D twice, once with backward into the weights."""

    def weights(network: nn.Module) -> list[Callable[[], Tensor]]:
        return [module.effective_weight for module in network.modules() if isinstance(module, SpectralWeight)]

    both = [(network, weights(network)) for network in (generator, discriminator)]
    gradients = [[torch.ones_like(weight().detach()) for weight in makers] for _, makers in both]

    def work() -> None:
        for (network, makers), grads in zip(both, gradients, strict=True):
            network.requires_grad_(True)
            with torch.no_grad():
                _all(makers)
            torch.autograd.backward(_all(makers), grads)
            network.zero_grad()

    return work


def _all(makers: Iterable[Callable[[], Tensor]]) -> list[Tensor]:
    return [maker() for maker in makers]
