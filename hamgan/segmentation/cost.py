"""Count a segmenter's parameters and multiplications, by the published convention and as computed by this code.

The published "FLOPs" of networks on VANs are multiply-adds (MACs) for one image of 512x512 in evaluation mode, as
counted by torchprofile: convolutions, matrix products, one per output of a normalisation and of an elementwise product,
four per output of a bilinear resize. Those of ResNet-101 count convolutions alone, at 512x2048.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hamgan.networks import count_parameters
from hamgan.segmentation.schema import SegmentationConfig
from hamgan.segmentation.segmenter import Segmenter, build_segmenter

_aten = torch.ops.aten


@dataclass(frozen=True)
class Cost:
    """Hold the parameters of a segmenter's parts, and the MACs of one image of a size."""

    height: int
    width: int
    parameters: dict[str, int]
    """Number of parameters of encoder, head and auxiliary head."""
    convolutions: int
    """MACs of convolutions, including the upper bread as if it followed the reconstruction."""
    products: int
    """MACs of the decomposition's matrix products, including the reconstruction."""
    elementwise: int
    """MACs, by the published convention, of normalisations, elementwise products and resizing."""
    saved: int
    """MACs of these that this code avoids, mostly by convolving the bases instead of the map."""

    @property
    def published(self) -> int:
        """Return the MACs by the convention of networks on VANs."""
        return self.convolutions + self.products + self.elementwise

    @property
    def spent(self) -> int:
        """Return the MACs of convolutions and matrix products in this code."""
        return self.convolutions + self.products - self.saved

    def lines(self) -> list[str]:
        """Return a table as lines of text."""
        total, without = sum(self.parameters.values()), f"less {self.saved / 1e9:.3f} G: it convolves the bases"
        parts = ", ".join(f"{name} {count:,}" for name, count in self.parameters.items() if count)
        return [
            f"parameters     {total:>15,}  ({parts})",
            f"multiplications of one image of {self.height}x{self.width}, in evaluation mode:",
            f"  convolutions {self.convolutions / 1e9:>11.3f} G",
            f"  decomposition{self.products / 1e9:>11.3f} G",
            f"  elements     {self.elementwise / 1e9:>11.3f} G",
            f"  published    {self.published / 1e9:>11.3f} G  (the three together; called FLOPs there)",
            f"  spent here   {self.spent / 1e9:>11.3f} G  (convolutions and decomposition, {without})",
        ]


def measure_cost(config: SegmentationConfig, height: int = 512, width: int = 512) -> Cost:
    """Count on the meta device, without computing; ConfigError if the number of classes is not known."""
    with torch.device("meta"):
        segmenter = build_segmenter(config).eval()
    convolutions, products, elementwise, positions = _count(segmenter, height, width)
    saved_convolutions, saved_products = _saved(segmenter, positions)
    auxiliary = 0 if segmenter.auxiliary is None else count_parameters(segmenter.auxiliary)
    return Cost(
        height,
        width,
        {
            "encoder": count_parameters(segmenter.encoder),
            "head": count_parameters(segmenter.head),
            "auxiliary": auxiliary,
        },
        convolutions + saved_convolutions,
        products + saved_products,
        elementwise,
        saved_convolutions + saved_products,
    )


def _elements(count: int) -> Callable[..., int]:
    def formula(*_: Any, out_shape: Any, **__: Any) -> int:
        shape = out_shape if isinstance(out_shape, torch.Size) else out_shape[0]
        return 2 * count * shape.numel()

    return formula


_ELEMENTWISE: dict[Any, Callable[..., int]] = {
    _aten.mul: _elements(1),
    _aten.addcmul: _elements(1),
    _aten.native_layer_norm: _elements(1),
    _aten.native_group_norm: _elements(1),
    _aten.native_batch_norm: _elements(1),
    _aten.cudnn_batch_norm: _elements(1),
    _aten._native_batch_norm_legit_no_training: _elements(1),  # what torch 2.8 counts instead
    _aten.upsample_bilinear2d: _elements(4),
}


def _count(segmenter: Segmenter, height: int, width: int) -> tuple[int, int, int, int]:
    """Return MACs of convolutions, matrix products and elements, and the number of positions in the Hamburger."""
    positions = 0

    def look(_: nn.Module, inputs: tuple[Tensor, ...], __: object) -> None:
        nonlocal positions
        positions = inputs[0].shape[2] * inputs[0].shape[3]

    counter = FlopCounterMode(display=False, custom_mapping=_ELEMENTWISE)
    hook = segmenter.head.squeeze.register_forward_hook(look)
    with torch.no_grad(), counter:
        logits = segmenter(torch.empty(1, 3, height, width, device="meta")).main
        segmenter.resize_logits(logits, height, width)
    hook.remove()
    counts = {operator: flops // 2 for operator, flops in counter.get_flop_counts()["Global"].items()}
    convolutions = counts.pop(_aten.convolution, 0)
    elementwise = sum(counts.pop(operator, 0) for operator in _ELEMENTWISE)
    block = segmenter.head.hamburger
    bread = 0
    if block is not None and block.cheese is not None:  # then the upper convolution runs as a matrix product
        bread = positions * block.upper_bread.get_parameter("weight").numel()
    return convolutions + bread, sum(counts.values()) - bread, elementwise, positions


def _saved(segmenter: Segmenter, positions: int) -> tuple[int, int]:
    """Return the MACs of convolutions and of matrix products that the published code needs and this code avoids.

    The published code convolves the reconstruction, and for NMF computes the first projection twice; this code
    convolves the bases and multiplies them by the coefficients.
    """
    block = segmenter.head.hamburger
    if block is None:
        return 0, 0
    folded = block.upper_bread if block.cheese is None else block.cheese
    outputs, latent = folded.get_parameter("weight").shape[:2]
    heads, rank = block.config.heads, block.config.rank
    product = positions * latent * rank  # of all heads, each with its share of the latent channels
    ours = latent * rank * outputs + positions * heads * rank * outputs
    return positions * latent * outputs, product * (2 if block.config.decomposition == "nmf" else 1) - ours
