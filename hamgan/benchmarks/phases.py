"""The phases of a training step, each by itself."""

import torch
from torch import Tensor, nn

from hamgan.benchmarks.steps import Workload, draw_batches
from hamgan.benchmarks.timing import Work
from hamgan.config import Config
from hamgan.losses import discriminator_loss
from hamgan.spectral import SpectralConv2d, SpectralWeight

KERNELS, PLAIN_KERNELS = "kernels from weights (inside the networks' phases)", "the same without spectral norm"


def phases(config: Config, workload: Workload) -> dict[str, Work]:
    """What a step does one after the other, on weights that stay as they are; the last two are part of others."""
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

    with_norm, without_norm = spectral_norm(step.generator, step.discriminator)
    return {
        "noise and images": lambda: draw_batches(config, step, len(batch.images)),
        "generated images for D": fakes,
        "D forward and backward": discriminator,
        "G and D forward and backward": generator,
        "both Adams": _optimisers(workload),
        "average of G": workload.average,
        KERNELS: with_norm,
        PLAIN_KERNELS: without_norm,
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


def spectral_norm(generator: nn.Module, discriminator: nn.Module) -> tuple[Work, Work]:
    """Every kernel of one step, and the same without normalisation: the difference is what normalisation costs.

    G runs twice, once with backward; D twice, once with backward into its weights.
    """
    both = [
        (network, [layer for layer in network.modules() if isinstance(layer, SpectralWeight)])
        for network in (generator, discriminator)
    ]
    gradients = [[torch.ones_like(_kernel(layer)) for layer in layers] for _, layers in both]

    def work() -> None:
        for (network, layers), grads in zip(both, gradients, strict=True):
            network.requires_grad_(True)
            with torch.no_grad():
                for layer in layers:
                    _kernel(layer)
            # Halved, so that each gradient is fresh memory, as it is behind a convolution.
            torch.autograd.backward([_kernel(layer) / 2 for layer in layers], grads)
            network.zero_grad()

    def without() -> None:
        for _, layers in both:
            for layer in layers:
                layer.folded = True
        work()
        for _, layers in both:
            for layer in layers:
                layer.folded = False

    return work, without


def _kernel(layer: SpectralWeight) -> Tensor:
    return layer.kernel() if isinstance(layer, SpectralConv2d) else layer.effective_weight()
