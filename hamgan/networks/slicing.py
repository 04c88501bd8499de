"""Separate direction and scale of D's last layer, as in slicing adversarial networks (Takida et al. 2024)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SlicingLayer(nn.Module):
    """Rate features by a unit vector and a scale per class: ``scale * <direction, features + bias>``.

    Takida et al. 2024 (SAN), section 5: the direction is trained to separate both distributions (a Wasserstein loss),
    the rest of D by the GAN's loss along that direction. The layer is not spectrally normalised. Shapes: features [B,
    C], labels [B] -> logits [B].
    """

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(F.normalize(torch.randn(classes, features), dim=1))
        self.scale = nn.Parameter(torch.ones(classes))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, features: Tensor, labels: Tensor, apart: bool = False) -> Tensor:
        """Return logits [B], or with ``apart`` the same values twice, [2, B].

        The gradient of the first reaches everything except the direction, that of the second only the direction.
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
        """Rescale the directions to length 1, in place; gradients orthogonal to them lengthen them in every step."""
        self.direction.copy_(F.normalize(self.direction, dim=1))
