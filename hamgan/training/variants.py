"""Compute the terms of D's loss that compare logits of images with those of variants of the same images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hamgan.config import ConsistencyConfig, TrainConfig
from hamgan.networks import Bases
from hamgan.networks.context import select_bases
from hamgan.training.augment import augment
from hamgan.training.inputs import DiscriminatorBatch


@dataclass(frozen=True)
class Variant:
    """Hold variants of some images of D's batch (the generated ones, then the real ones), and their term of the loss.

    D gets them with the labels and initial bases of their images, so that only the images differ.
    """

    name: str
    """Name of the term among the metrics."""
    images: Tensor
    """Variants [V, 3, R, R], as D sees them."""
    rows: slice
    """Rows of their images in the batch, V of them."""
    weight: float
    """Weight of the term in D's loss."""
    scale: float = 1.0
    """Factor on the squared differences in the term."""

    def term(self, logits: Tensor, logits_of_variants: Tensor) -> Tensor:
        """Return the scaled mean squared difference of the logits of the batch [2B] and of the variants [V]."""
        return self.scale * (logits_of_variants - logits[self.rows]).square().mean()


def consistency_variants(
    config: ConsistencyConfig, images: Tensor, nearby: Tensor | None, batch: DiscriminatorBatch
) -> list[Variant]:
    """Return the copies that CR (Zhang et al. 2020, equation 4), bCR and zCR (Zhao et al. 2021) compare.

    Shapes: images [2B, 3, R, R] as D sees them, generated and then real; ``nearby`` [B, 3, R, R] are generated
    from nearby latents and not augmented yet; they get the augmentation of their images.
    """
    half = len(images) // 2
    fake, real = slice(0, half), slice(half, 2 * half)
    variants = []
    for name, rows, weight in (("cr_fake", fake, config.fake), ("cr_real", real, config.real)):
        if weight:
            copies = augment(images[rows], select_parameters(batch.transformation, rows))
            variants.append(Variant(name, copies, rows, weight))
    if nearby is not None:
        variants.append(
            Variant("zcr", augment(nearby, select_parameters(batch.augmentation, fake)), fake, config.latent)
        )
    return variants


def penalty_variants(train: TrainConfig, images: Tensor, batch: DiscriminatorBatch) -> list[Variant]:
    """Return images with noise, whose terms estimate ``|grad D|^2 / 2``: R1 on real, R2 on generated images.

    Lin et al. 2025 (APT), equation 3; see `FiniteDifferencesConfig`. Shapes: images [2B, 3, R, R], generated and then
    real, before their augmentation; noisy ones get the same.
    """
    half, differences = len(images) // 2, train.finite_differences
    variants = []
    for name, start, gamma in (("r1", half, train.r1_gamma), ("r2", 0, train.r2_gamma)):
        if gamma and name in batch.image_noise:
            rows = slice(start, start + half, differences.stride)
            noisy = images[rows] + differences.sigma * batch.image_noise[name].to(images.dtype)
            noisy = augment(noisy, select_parameters(batch.augmentation, rows))
            variants.append(Variant(name, noisy, rows, gamma, scale=0.5 / differences.sigma**2))
    return variants


def select_parameters(parameters: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
    """Return the parameters of `augment` for some of the images."""
    return {name: values[rows] for name, values in parameters.items()}


def join_variants(
    images: Tensor, labels: Tensor, bases: Bases | None, variants: Sequence[Variant]
) -> tuple[Tensor, Tensor, Bases | None]:
    """Return the input of one forward pass of D over a batch and all variants, as DDP allows one per backward pass."""
    if not variants:
        return images, labels, bases
    rows = [slice(0, len(images)), *(variant.rows for variant in variants)]
    joined = torch.cat([images, *(variant.images for variant in variants)])
    return joined, torch.cat([labels[part] for part in rows]), bases and select_bases(bases, rows, len(images))
