"""Run DINOv2's ViT-L/14 (Oquab et al. 2023) on the published weights, for FD-DINOv2 (Stein et al. 2023)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from hamgan.evaluation.features.weights import PublishedWeights

PUBLISHED = PublishedWeights(
    "DINOv2",
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    "d5383ea8f4877b24",
    "HAMGAN_DINOV2_WEIGHTS",
)
WIDTH, DEPTH, HEADS, PATCH = 1024, 24, 16, 14
TRAINED_GRID = 37
"""Patches per side in training at 518 pixels, the grid of the file's position embeddings."""
MEAN, STD = [255 * value for value in (0.485, 0.456, 0.406)], [255 * value for value in (0.229, 0.224, 0.225)]


class LayerScale(nn.Module):
    """Scale each channel by a learned factor. Shapes: [..., C] -> [..., C]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Attention(nn.Module):
    """Let the first ``count`` tokens attend to all, with several heads. Shapes: [B, N, C] -> [B, count, C]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, count: int) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query[:, :, :count], key, value)
        mixed: Tensor = self.proj(found.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Add attention, then a two-layer perceptron, each normalised before and scaled after, to the first tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.ls1, self.ls2 = LayerScale(width), LayerScale(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor, count: int) -> Tensor:
        x = x[:, :count] + self.ls1(self.attn(self.norm1(x), count))
        y: Tensor = self.ls2(self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)))))
        return x + y


class VisionTransformer(nn.Module):
    """Compute DINOv2's class token after the last normalisation; names of weights are those of the published file."""

    def __init__(self, width: int, depth: int, heads: int, grid: int = TRAINED_GRID) -> None:
        super().__init__()
        self.grid = grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # only for training, but in the file
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward_resized(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the class token [B, width] of float pixels 0 to 255 [B, 3, H, W], H and W multiples of 14."""
        patches = self.patch_embed["proj"](normalize(pixels, MEAN, STD))
        positions = self.position_embeddings(*patches.shape[-2:])
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches.flatten(2).mT], 1) + positions
        for block in self.blocks:
            # Of the last block only the class token is used.
            x = block(x, 1 if block is self.blocks[-1] else x.shape[1])
        return (self.norm(x[:, 0]),)  # each token is normalised on its own

    def position_embeddings(self, rows: int, columns: int) -> Tensor:
        """Resize the position embeddings to a grid of patches, [1, 1 + rows * columns, width].

        Bicubic without antialiasing, by a factor that is a tenth of a patch too large, as in the official code, which
        avoids a rounding problem this way; published features depend on it.
        """
        if rows == columns == self.grid:
            return self.pos_embed
        maps = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        factors = (rows + 0.1) / self.grid, (columns + 0.1) / self.grid
        resized = F.interpolate(maps, scale_factor=factors, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).mT], 1)


def load_dinov2(weights: Path) -> VisionTransformer:
    """Load the published file, or one with its names and shapes."""
    with torch.device("meta"):
        network = VisionTransformer(WIDTH, DEPTH, HEADS)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), assign=True)
    return network.requires_grad_(False)
