"""Compute the adversarial losses of both networks, on plain logits."""

import torch.nn.functional as F
from torch import Tensor


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


def generator_loss(kind: str, logits_fake: Tensor, logits_real: Tensor | None = None) -> Tensor:
    """Return the loss of G, a scalar. Shapes: logits [B]; only the relativistic loss looks at the real ones."""
    if kind in ("hinge", "wasserstein"):
        return -logits_fake.mean()
    if kind == "non_saturating":
        return F.softplus(-logits_fake).mean()
    if kind == "relativistic" and logits_real is not None:
        return F.softplus(logits_real - logits_fake).mean()
    raise ValueError(f"unknown loss {kind!r}, or no real logits for the relativistic one")
