"""Keep direction and scale of D's last layer apart: the layer of slicing adversarial networks (Takida et al. 2024)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SlicingLayer(nn.Module):
    """Judge features by a unit vector and a scale per class: ``scale * <direction, features + bias>``.

    Takida et al. 2024 (SAN), section 5: the direction learns to tell both distributions apart (a Wasserstein loss), all
    else of D learns by the loss of the GAN along that direction. Spectral normalisation has no place here.
    Shapes: features [B, C], labels [B] -> logits [B].
    """

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(F.normalize(torch.randn(classes, features), dim=1))
        self.scale = nn.Parameter(torch.ones(classes))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, features: Tensor, labels: Tensor, apart: bool = False) -> Tensor:
        """Return logits [B]; ``apart``: twice the same, [2, B].

        The gradient of the first reaches all but the direction, that of the second the direction alone.
        """
        features = features + self.bias
        direction = F.normalize(F.embedding(labels, self.direction), dim=1)
        scale = F.embedding(labels, self.scale[:, None]).squeeze(1)
        if not apart:
            return scale * (direction * features).sum(dim=1)
        without = scale * (direction.detach() * features).sum(dim=1)
        alone = scale.detach() * (direction * features.detach()).sum(dim=1)
        return torch.stack([without, alone])

    @torch.no_grad()
    def normalise(self) -> None:
        """Bring the directions back to length 1: their gradients are orthogonal to them, so that every step adds."""
        self.direction.copy_(F.normalize(self.direction, dim=1))
