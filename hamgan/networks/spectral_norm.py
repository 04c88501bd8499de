"""Divide weights by their largest singular value (Miyato et al. 2018), in linear layers, class tables and convolutions.

A network calls `effective_weights` at the start of its forward pass and passes the result to every layer.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hamgan.config import SpectralNormConfig
from hamgan.hamburger.precision import without_autocast
from hamgan.networks.resampling import Resample, average_pool, resampling_kernel, resampling_taps, upsample

Weights = dict[nn.Module, Tensor]
"""The weight of each layer for one forward pass: W / sigma, or W itself if it is not normalised."""

SMALL = 2**17
"""Weights of up to this many values are divided in one call, since separate calls cost more than the divisions. Larger
ones are divided one by one, so that their gradients can be reduced over processes during the backward pass."""


class _DividedWeights(torch.autograd.Function):
    """Divide each weight W by its sigma; the closed-form gradient avoids the graph of the power iteration.

    Arguments: the types of the results, then equally many weights, divisors, slopes and right singular vectors v. A
    slope is -u / divisor, or zeros if the divisor does not depend on W. u and v are constants for the gradient.
    """

    @staticmethod
    def forward(ctx: Any, dtypes: Sequence[torch.dtype], *tensors: Tensor) -> tuple[Tensor, ...]:
        weights, divisors, _, _ = _quarters(tensors)
        ctx.save_for_backward(*tensors)
        return tuple(map(_quotient, weights, divisors, dtypes))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weights, divisors, slopes, vs = _quarters(ctx.saved_tensors)
        # Divisors with an axis: without one they would be rounded to the type of the gradient.
        found = [_laid_out_as_weight(grad / divisor[None]) for grad, divisor in zip(grads, divisors, strict=True)]
        for grad, weight, slope, v in zip(found, weights, slopes, vs, strict=True):
            matrix = _as_matrix(grad)
            # A dot product needs no memory for its products.
            matrix.addr_(slope * torch.dot(matrix.view(-1), _as_matrix(weight).view(-1)), v)
        return (None, *found, *[None] * (3 * len(found)))


def _quotient(weight: Tensor, divisor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return weight / divisor in another type by one kernel, without a copy in the weight's own type."""
    if dtype == weight.dtype:
        return weight / divisor
    if torch.compiler.is_compiling():  # which fuses both, and breaks its graph at ``out=``
        return (weight / divisor).to(dtype)
    return torch.div(weight, divisor, out=torch.empty_like(weight, dtype=dtype))


def _quarters(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    length = len(tensors) // 4
    return (list(tensors[start : start + length]) for start in range(0, 4 * length, length))


def _laid_out_as_weight(tensor: Tensor) -> Tensor:
    """Return a dense kernel in channels-last order, a matrix in row-major order.

    An axis of length 1 may have any stride; here it gets the weight's, because DDP compares strides of gradient and
    weight.
    """
    if tensor.dim() == 2:
        return tensor.reshape(-1).view(tensor.shape)
    rows = tensor.permute(0, 2, 3, 1)
    return rows.reshape(-1).view(rows.shape).permute(0, 3, 1, 2)


def _as_matrix(weight: Tensor) -> Tensor:
    """Return [out, in] unchanged, and a channels-last kernel [out, in, kh, kw] as a view [out, kh*kw*in]."""
    return weight if weight.dim() == 2 else weight.permute(0, 2, 3, 1).flatten(1)


class SpectralWeight(nn.Module):
    """Hold a weight that is divided by its largest singular value, estimated by one power iteration per forward pass.

    The singular vector is stored in training mode; in evaluation mode the iteration runs but its result is discarded,
    as in BigGAN-PyTorch and tensorflow-gan. Gradients flow through W in sigma, not through the vectors.

    Shapes: weight [out, in] or [out, in, kh, kw]; the stored vector has length out (``vector: output``) or
    kh*kw*in (``vector: input``), in that order.
    """

    vector: Tensor
    sigma: Tensor

    def __init__(self, shape: tuple[int, ...], config: SpectralNormConfig, clamp: bool | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(_laid_out_as_weight(torch.empty(shape)))
        self.config = config
        self.clamp = config.clamp if clamp is None else clamp
        self.folded = not config.enabled
        if config.enabled:
            columns = self.weight[0].numel()
            self.register_buffer("vector", torch.randn(shape[0] if config.vector == "output" else columns))
        self.register_buffer("sigma", torch.ones(()), persistent=False)  # of the last forward pass, for logging

    def effective_weight(self, weights: Weights | None = None) -> Tensor:
        """Return this layer's weight for one forward pass, from ``weights``, else by its own power iteration."""
        return (effective_weights(self) if weights is None else weights)[self]

    def weight_dtype(self) -> torch.dtype:
        """Return the type that `effective_weights` makes this layer's weight in."""
        return self.weight.dtype

    @torch.no_grad()
    def fold(self) -> None:
        """Replace the weight by its normalised value for good (sampling and export)."""
        if not self.folded:
            self.weight.copy_(self.effective_weight())
            self.take_as_folded()

    def take_as_folded(self) -> None:
        """Treat the weight as normalised already, as in a file of folded weights."""
        if not self.folded:
            self.folded = True
            del self.vector


def effective_weights(network: nn.Module) -> Weights:
    """Return every layer's weight for one forward pass; in training mode power iterations advance."""
    layers = [module for module in network.modules() if isinstance(module, SpectralWeight)]
    weights: Weights = {layer: layer.weight for layer in layers}
    layers = [layer for layer in layers if not layer.folded]
    if not layers:
        return weights
    dtypes = [layer.weight_dtype() for layer in layers]
    # In the weights' precision: bf16 vectors would never converge, and 1 / sigma in bf16 is off by up to 0.4 %.
    with without_autocast(layers[0].weight.device):
        columns = [layer.weight for layer in layers], *_power_iterations(layers)
        for group in _groups(layers):
            tensors = (column[index] for column in columns for index in group)
            divided = _DividedWeights.apply([dtypes[index] for index in group], *tensors)
            weights.update(zip((layers[index] for index in group), divided, strict=True))
    return weights


def _groups(layers: Sequence[SpectralWeight]) -> list[list[int]]:
    """Return the indices of the layers whose weights are divided together: all small ones, each large one alone."""
    small = [index for index, layer in enumerate(layers) if layer.weight.numel() <= SMALL]
    alone = [[index] for index, layer in enumerate(layers) if layer.weight.numel() > SMALL]
    return [small, *alone] if small else alone


@torch.no_grad()
def _power_iterations(layers: Sequence[SpectralWeight]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Do one power iteration per layer; returns divisors, slopes and right vectors for `_DividedWeights`.

    One call for all layers takes half the time of separate calls, since most of a small weight's time is dispatch.
    """
    config, matrices = layers[0].config, [_as_matrix(layer.weight) for layer in layers]
    if config.vector == "input":
        matrices = [matrix.mT for matrix in matrices]
    stored = [layer.vector for layer in layers]
    others, products = [], []
    for matrix, vector in zip(matrices, stored, strict=True):
        others.append(torch.mv(matrix.mT, vector))
        products.append(torch.mv(matrix, others[-1]))  # normalised below: here the matrix is still in the cache
    other_norms = torch._foreach_clamp_min(torch._foreach_norm(others), config.eps)
    norms = torch._foreach_div(torch._foreach_norm(products), other_norms)
    clamped = torch._foreach_clamp_min(norms, config.eps)
    others = _with_scalars("div", others, other_norms)
    products = _with_scalars("div", products, torch._foreach_mul(other_norms, clamped))
    sigmas = torch._foreach_div(torch._foreach_mul(norms, norms), clamped)  # of a product and its normalised form
    divisors = torch._foreach_clamp_min(sigmas, [1.0 if layer.clamp else 0.0 for layer in layers])
    # -1 / divisor, or 0 if the divisor is clamped.
    unbound = torch._foreach_sub(torch._foreach_sign(torch._foreach_sub(divisors, sigmas)), 1.0)
    factors = torch._foreach_div(unbound, divisors)
    torch._foreach_copy_([layer.sigma for layer in layers], sigmas)
    if layers[0].training:
        torch._foreach_copy_(stored, products)
    us, vs = (products, others) if config.vector == "output" else (others, products)
    return list(divisors), _with_scalars("mul", us, factors), vs


def _with_scalars(
    operator: Literal["mul", "div"], vectors: Sequence[Tensor], scalars: Sequence[Tensor]
) -> list[Tensor]:
    """Apply an operator to pairs of vector and scalar, in one call.

    On a GPU ``torch._foreach`` operators with tensor scalars run one by one, so the vectors are concatenated. The
    compiler fuses them into one kernel, but would make one kernel per operand of a concatenation.
    """
    if torch.compiler.is_compiling():
        return list(getattr(torch, f"_foreach_{operator}")(vectors, scalars))
    sizes = [len(vector) for vector in vectors]
    spread = torch.cat([scalar.expand(size) for scalar, size in zip(scalars, sizes, strict=True)])
    return list(getattr(torch, operator)(torch.cat(list(vectors)), spread).split(sizes))


class SpectralLinear(SpectralWeight):
    """Multiply by a normalised weight: ``x @ (W / sigma).mT + b``. Shapes: x [B, in] -> [B, out]."""

    def __init__(self, inputs: int, outputs: int, config: SpectralNormConfig, bias: bool = True) -> None:
        super().__init__((outputs, inputs), config)
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor, weights: Weights | None = None) -> Tensor:
        return F.linear(x, self.effective_weight(weights), self.bias)


class SpectralEmbedding(SpectralWeight):
    """Look labels up in a class table divided by its largest singular value. Shapes: labels [B] -> [B, features]."""

    def __init__(self, classes: int, features: int, config: SpectralNormConfig) -> None:
        super().__init__((classes, features), config)

    def forward(self, labels: Tensor, weights: Weights | None = None) -> Tensor:
        return F.embedding(labels, self.effective_weight(weights))


class SpectralConv2d(SpectralWeight):
    """Convolve with a normalised kernel and 'same' padding, after nearest 2x up-sampling or before 2x2 pooling.

    Shapes: x [B, in, H, W] -> [B, out, H', W'], H' = 2H (up), H (none) or H/2 (down). A 1x1 kernel commutes with both
    resamplings, so it runs at the smaller size; a 3x3 kernel is merged with them (`resampling_kernel`).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        config: SpectralNormConfig,
        *,
        resample: Resample = "none",
        bias: bool = True,
        clamp: bool | None = None,
    ) -> None:
        super().__init__((outputs, inputs, kernel, kernel), config, clamp)
        self.resample: Resample = resample
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self._taps = resampling_taps(resample) if resample != "none" and kernel == 3 else None

    def weight_dtype(self) -> torch.dtype:
        """Return the type that autocast converts the kernel to, or the weight's own if a resampling is merged."""
        place = self.weight.device.type
        follows = self._taps is None and place != "meta" and torch.is_autocast_enabled(place)
        return torch.get_autocast_dtype(place) if follows else self.weight.dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SpectralConv2d":
        """Move the taps along with the weights, also when leaving the meta device."""
        super()._apply(fn, recurse)
        if self._taps is not None:
            self._taps = resampling_taps(self.resample).to(self.weight)
        return self

    def forward(self, x: Tensor, weights: Weights | None = None) -> Tensor:
        return self.convolve(x, weights, self.bias)

    def convolve(self, x: Tensor, weights: Weights | None, bias: Tensor | None) -> Tensor:
        """Do the same as `forward` with another bias [out] or none, so that a sum of two convolutions adds one bias."""
        weight = self.effective_weight(weights)
        if self._taps is not None:
            with without_autocast(weight.device):
                kernel = resampling_kernel(weight, self._taps, up=self.resample == "up")
            convolution = F.conv_transpose2d if self.resample == "up" else F.conv2d
            return convolution(x, kernel, bias, stride=2, padding=1)
        x = average_pool(x) if self.resample == "down" else x
        y = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        return upsample(y) if self.resample == "up" else y
