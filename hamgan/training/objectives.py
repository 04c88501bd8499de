"""Compute the objectives of both networks on a batch: the adversarial loss and all other terms."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hamgan.config import TrainConfig
from hamgan.networks import Bases
from hamgan.networks.context import select_bases
from hamgan.training.augment import augment
from hamgan.training.inputs import DiscriminatorBatch, GeneratorBatch
from hamgan.training.losses import discriminator_loss, generator_loss, top_k_weights
from hamgan.training.regularisers import gradient_penalty, lecam, mode_seeking
from hamgan.training.variants import consistency_variants, join_variants, penalty_variants

Forward = Callable[..., Tensor]
"""G, D or a wrapper of one: latents [B, z] or images [B, 3, R, R], labels [B] and bases -> images or logits [B]."""
Generated = tuple[Tensor, Tensor | None]
"""Images of G, and images of nearby latents or None."""


def draw_images(
    generator: Forward, latents: Tensor, labels: Tensor, bases: Bases | None, nearby: Tensor | None
) -> Generated:
    """Draw images [B, 3, R, R] by G or a wrapper of it, and the images of ``nearby`` latents [B, z] if given.

    Both are drawn in one forward pass, as DDP allows one per backward pass. They share the moments of batch norm, the
    labels and the bases, so only the latents differ.
    """
    if nearby is None:
        return generator(latents, labels, bases), None
    bases = bases and select_bases(bases, [slice(None)] * 2, len(latents))
    images, near = generator(torch.cat([latents, nearby]), labels.repeat(2), bases).chunk(2)
    return images, near


@dataclass
class Objective:
    """Sum the terms of one network's loss, and collect those to log in ``metrics``."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, weight: float, term: Tensor) -> None:
        """Add a term times its weight, and log the term."""
        self.loss = self.loss + weight * term
        self.metrics[name] = term


def has_double_backward(train: TrainConfig) -> bool:
    """Return whether D's loss contains gradients of D, which need second derivatives."""
    return (train.r1_gamma > 0 or train.r2_gamma > 0) and not train.finite_differences.enabled


def discriminator_objective(
    discriminator: Forward,
    generated: Generated,
    batch: DiscriminatorBatch,
    train: TrainConfig,
    logit_averages: Tensor,
    sliced: bool,
) -> Objective:
    """Return the objective of D on generated images and the real images of ``batch``.

    ``logit_averages`` [2] are LeCam's averages of real and fake logits; ``sliced`` says that D ends in a
    `SlicingLayer`. The metrics ``logits_real`` and ``logits_fake`` are the means of the logits.
    """
    fake, nearby = generated
    # One concatenated forward pass: DDP allows one per backward pass, and larger batches are faster.
    plain = torch.cat([fake.to(batch.images.dtype), batch.images])
    double_backward = has_double_backward(train)
    plain.requires_grad_(double_backward)
    images = augment(plain, batch.augmentation)
    labels = torch.cat([batch.fake_labels, batch.labels])
    variants = consistency_variants(train.consistency, images, nearby, batch) + penalty_variants(train, plain, batch)
    # Of the kernels of attention only the plain one has second derivatives.
    with sdpa_kernel(SDPBackend.MATH) if double_backward else nullcontext():
        judged = discriminator(*join_variants(images, labels, batch.bases, variants), *[True] * sliced)
    directions = judged[1, : len(images)] if sliced else None
    judged = judged[0] if sliced else judged
    logits, *of_variants = judged.split([len(images), *(len(variant.images) for variant in variants)])
    logits_fake, logits_real = logits.split([len(fake), len(batch.images)])
    adversarial = discriminator_loss(train.loss, logits_real, logits_fake)
    means = {"logits_real": logits_real.detach().mean(), "logits_fake": logits_fake.detach().mean()}
    objective = Objective(adversarial, {"d_loss": adversarial} | means)
    if directions is not None:
        direction_fake, direction_real = directions.split([len(fake), len(batch.images)])
        objective.add("direction_loss", 1.0, discriminator_loss("wasserstein", direction_real, direction_fake))
    if double_backward:
        _add_gradient_penalties(objective, logits_fake, logits_real, plain, train)
    if train.lecam:
        objective.loss = objective.loss + train.lecam * lecam(logits_real, logits_fake, *logit_averages)
    for variant, of_variant in zip(variants, of_variants, strict=True):
        objective.add(variant.name, variant.weight, variant.term(logits, of_variant))
    return objective


def _add_gradient_penalties(
    objective: Objective, logits_fake: Tensor, logits_real: Tensor, images: Tensor, train: TrainConfig
) -> None:
    penalty = torch.zeros((), device=images.device)
    for name, gamma, logits in (("r1", train.r1_gamma, logits_real), ("r2", train.r2_gamma, logits_fake)):
        if gamma:
            # The penalty averages over all images given; generated ones have no share in the real logits.
            objective.metrics[name] = gradient_penalty(logits, images) * len(images) / len(logits)
            penalty = penalty + gamma * objective.metrics[name]
    objective.loss = objective.loss + penalty


def generator_objective(
    discriminator: Forward, generated: Generated, batch: GeneratorBatch, train: TrainConfig
) -> Objective:
    """Return the objective of G on the images that it drew from ``batch``."""
    fake, nearby = generated
    images, labels = fake, batch.labels
    if batch.images is not None and batch.image_labels is not None:
        images = torch.cat([fake, batch.images.to(fake.dtype)])
        labels = torch.cat([labels, batch.image_labels])
    logits = discriminator(augment(images, batch.augmentation), labels, batch.bases)
    logits_fake, logits_real = logits[: len(fake)], logits[len(fake) :]
    weights = top_k_weights(logits_fake, train.top_k) if train.top_k < 1 else None
    adversarial = generator_loss(train.loss, logits_fake, logits_real if len(logits_real) else None, weights)
    objective = Objective(adversarial, {"g_loss": adversarial})
    if train.mode_seeking:
        objective.add("mode_seeking", train.mode_seeking, mode_seeking(fake, batch.latents))
    if nearby is not None:
        objective.add("latent_spread", -train.consistency.spread, (nearby - fake).float().square().mean())
    return objective
