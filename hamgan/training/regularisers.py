"""Compute the regularisers that are added to the adversarial losses, on plain tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAME_IMAGE = 1e-3
"""Floor of the quotient in `mode_seeking`: a seventh of a grey level between two latents of N(0, 1)."""


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Return ``|grad_x D(x)|^2 / 2``, averaged over the batch: R1 on real, R2 on generated images (Mescheder 2018).

    Shapes: logits [B] computed from images [B, 3, H, W], which must require a gradient.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() / 2


def lecam(logits_real: Tensor, logits_fake: Tensor, average_real: Tensor, average_fake: Tensor) -> Tensor:
    """Return the LeCam regularisation of logits [B] towards moving averages of them (Tseng et al. 2021, equation 7)."""
    return F.relu(logits_real - average_fake).square().mean() + F.relu(average_real - logits_fake).square().mean()


def mode_seeking(images: Tensor, latents: Tensor) -> Tensor:
    """Return ``1 / (|I_1 - I_2| / |z_1 - z_2|)``, averaged over pairs, which grows as images become alike.

    Uses mean absolute differences, like the official code of Mao et al. 2019 (MSGAN, equation 3). That code averages
    over the batch before the quotient, which hides a class that has collapsed behind the others. Shapes: images [B, 3,
    H, W] in [-1, 1] and latents [B, z]; the pairs are rows 0 and 1, 2 and 3, ..., of one class.
    """
    between_images = (images[0::2] - images[1::2]).float().abs().mean(dim=(1, 2, 3))
    between_latents = (latents[0::2] - latents[1::2]).abs().mean(dim=1)
    return (1 / (between_images / between_latents + SAME_IMAGE)).mean()


@torch.no_grad()
def add_orthogonal_gradient(network: nn.Module, strength: float, exclude: set[int] | None = None) -> None:
    """Add the gradient of BigGAN's off-diagonal orthogonal regularisation, ``2 s ((W W^T) * (1 - I)) W``.

    Brock et al. 2019, equation 3, applied to the raw weights of every tensor with two or more axes, as
    in BigGAN-PyTorch. ``exclude`` has the ids of parameters to leave out (the shared class embedding).
    """
    for parameter in network.parameters():
        if parameter.dim() < 2 or parameter.grad is None or id(parameter) in (exclude or ()):
            continue
        weight = parameter.flatten(1)
        gram = weight @ weight.mT
        gram.fill_diagonal_(0.0)
        parameter.grad.add_((gram @ weight).view(parameter.shape), alpha=2.0 * strength)
