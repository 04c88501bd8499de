"""Compute the adversarial losses of both networks, on plain logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hamgan.distributed.group import stack_processes


def discriminator_loss(kind: str, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Return the loss of D, a scalar. Shapes: logits [B].

    hinge (Lim & Ye 2017; SAGAN, BigGAN), non_saturating (Goodfellow et al. 2014), wasserstein (Arjovsky et al. 2017),
    relativistic pairing (Jolicoeur-Martineau 2018; R3GAN).
    """
    if kind == "hinge":
        return F.relu(1.0 - logits_real).mean() + F.relu(1.0 + logits_fake).mean()
    if kind == "non_saturating":
        return F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean()
    if kind == "wasserstein":
        return logits_fake.mean() - logits_real.mean()
    if kind == "relativistic":
        return F.softplus(logits_fake - logits_real).mean()
    raise ValueError(f"unknown loss {kind!r}")


def generator_loss(
    kind: str, logits_fake: Tensor, logits_real: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Return the loss of G, a scalar. Shapes: logits [B]; only the relativistic loss uses the real ones.

    ``weights`` [B], with a mean of 1, weigh the images.
    """
    if kind in ("hinge", "wasserstein"):
        losses = -logits_fake
    elif kind == "non_saturating":
        losses = F.softplus(-logits_fake)
    elif kind == "relativistic" and logits_real is not None:
        losses = F.softplus(logits_real - logits_fake)
    else:
        raise ValueError(f"unknown loss {kind!r}, or no real logits for the relativistic one")
    return losses.mean() if weights is None else (weights * losses).mean()


@torch.no_grad()
def top_k_weights(logits: Tensor, share: float) -> Tensor:
    """Return weights [B] for the loss of G that are 0 except for the ``share`` of images with the highest logits.

    Sinha et al. 2020 (top-k training), algorithm 1. Shapes: logits [B] of the generated images of this process; the
    share is taken over all processes. The mean weight over them is 1, so the mean loss is that of the chosen images.
    """
    everyone = stack_processes(logits).flatten()
    count = max(1, round(share * len(everyone)))
    least = everyone.topk(count).values[-1]
    return (logits >= least).to(logits.dtype) / (everyone >= least).to(logits.dtype).mean()
