"""The phases of a training step, each by itself."""

import torch

from benchmarks.steps import Workload, draw_batches
from benchmarks.timing import Work
from hamgan.config import Config
from hamgan.training.losses import discriminator_loss


def phases(config: Config, workload: Workload) -> dict[str, Work]:
    """What a step does one after the other, on weights that stay as they are."""
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
        step.accelerator.backward(discriminator_loss(step.config.loss, logits_real, logits_fake))
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
