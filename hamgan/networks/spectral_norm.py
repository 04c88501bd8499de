"""Spectrally normalised layers, convolutions with resampling among them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hamgan.config import SpectralNormConfig
from hamgan.hamburger.precision import without_autocast
from hamgan.networks.resampling import Resample, resampling_gradient, resampling_kernel, resampling_taps

SMALL = 2**17
"""Up to so many values a weight is normalised in one go with others: a call of its own costs more than dividing it."""


class PowerIteration(NamedTuple):
    """What a power iteration leaves for one layer: what its weight W is divided by, and the gradient of that."""

    divisor: Tensor
    """sigma = u^T W v or, with ``clamp``, max(1, sigma)."""
    slope: Tensor
    """-u / divisor [out], or zeros where the divisor is 1, whatever sigma."""
    v: Tensor
    """[columns]"""
    weight: Tensor | None = None
    """W / divisor, where it was made beforehand."""


def _constants(iterations: Sequence[PowerIteration]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Divisors, slopes and vs."""
    divisors, slopes, vs, *_ = (list(parts) for parts in zip(*iterations, strict=True))
    return divisors, slopes, vs


def _add_through_divisor(grad: Tensor, weight: Tensor, slope: Tensor, v: Tensor) -> Tensor:
    """Add, in place, the gradient of W through the divisor to the one that W / divisor has with a constant divisor.

    u and v are constants. Shapes: as `SpectralWeight`'s, and ``grad`` is laid out as the weight.
    """
    matrix = _as_matrix(grad)
    # A dot product needs no memory for its products.
    matrix.addr_(slope * torch.dot(matrix.view(-1), _as_matrix(weight).view(-1)), v)
    return grad


class _NormalisedWeights(torch.autograd.Function):
    """W / divisor of each weight; the closed-form gradient avoids the graph of the power iteration."""

    @staticmethod
    def forward(ctx: Any, iterations: Sequence[PowerIteration], *weights: Tensor) -> tuple[Tensor, ...]:
        divisors, slopes, vs = _constants(iterations)
        ctx.save_for_backward(*weights, *divisors, *slopes, *vs)
        return tuple(torch._foreach_div(weights, divisors))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weights, divisors, slopes, vs = _in_parts(ctx.saved_tensors, 4)
        divided = map(_laid_out_as_weight, torch._foreach_div(grads, divisors))
        return None, *map(_add_through_divisor, divided, weights, slopes, vs)


class _MergedKernel(torch.autograd.Function):
    """The `resampling_kernel` of W / divisor, which is divided on the way without a pass of its own."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, iteration: PowerIteration, spread: Tensor, up: bool) -> Tensor:
        ctx.up, spread = up, spread / iteration.divisor
        ctx.save_for_backward(weight, iteration.slope, iteration.v, spread)
        return resampling_kernel(weight, spread, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, slope, v, spread = ctx.saved_tensors
        return _add_through_divisor(resampling_gradient(grad, spread, ctx.up), weight, slope, v), None, None, None


class _UndividedWeight(torch.autograd.Function):
    """W as it is, for a product whose other factor is divided; its gradient gets the part through the divisor.

    That happens in place: for layers' products, whose gradient of W is memory that nothing else holds.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, iteration: PowerIteration) -> Tensor:
        ctx.save_for_backward(weight, iteration.slope, iteration.v)
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _add_through_divisor(_laid_out_as_weight(grad), *ctx.saved_tensors), None


class _DividedProducts(torch.autograd.Function):
    """x[i] @ W.mT / divisor for each index and weight: few rows are divided instead of weights and their gradients.

    The gradient of the divisor is a scalar product of such rows too.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, indices: Sequence[int], iterations: Sequence[PowerIteration], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.indices, (divisors, slopes, vs) = indices, _constants(iterations)
        products = [torch.mm(x[index], weight.mT) for index, weight in zip(indices, weights, strict=True)]
        torch._foreach_div_(products, divisors)
        ctx.save_for_backward(x, *weights, *products, *divisors, *slopes, *vs)
        return tuple(products)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        weights, products, divisors, slopes, vs = _in_parts(saved, 5)
        dots = [torch.dot(grad.reshape(-1), product.view(-1)) for grad, product in zip(grads, products, strict=True)]
        slopes, grads = list(torch._foreach_mul(slopes, dots)), torch._foreach_div(grads, divisors)
        grad_x, grad_weights = torch.zeros_like(x), []
        for index, grad, weight, slope, v in zip(ctx.indices, grads, weights, slopes, vs, strict=True):
            grad_x[index].addmm_(grad, weight)
            grad_weights.append(torch.mm(grad.mT, x[index]).addr_(slope, v))
        return grad_x, None, None, *grad_weights


def _in_parts(tensors: Sequence[Tensor], parts: int) -> Iterator[list[Tensor]]:
    """As many successive tensors in every part."""
    length = len(tensors) // parts
    return (list(tensors[start : start + length]) for start in range(0, len(tensors), length))


def _laid_out_as_weight(tensor: Tensor) -> Tensor:
    """A kernel channels-last, a matrix row by row."""
    return tensor.contiguous(memory_format=torch.channels_last if tensor.dim() == 4 else torch.contiguous_format)


def _as_matrix(weight: Tensor) -> Tensor:
    """[out, in] as it is; [out, in, kh, kw] as [out, kh*kw*in], a view of a channels-last kernel."""
    return weight if weight.dim() == 2 else weight.permute(0, 2, 3, 1).flatten(1)


class SpectralWeight(nn.Module):
    """A weight divided by its largest singular value (Miyato et al. 2018), estimated by one power iteration per call.

    In training mode the singular vector is stored, in evaluation mode the same iteration runs and is thrown away, as
    BigGAN-PyTorch and tensorflow-gan both do. Gradients flow through W in sigma, not through the vectors.

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
        self.grouped = self.weight.numel() <= SMALL
        """Whether `normalise_together` normalises the weight."""
        self.folded = not config.enabled
        if config.enabled:
            columns = self.weight[0].numel()
            self.register_buffer("vector", torch.randn(shape[0] if config.vector == "output" else columns))
        self.register_buffer("sigma", torch.ones(()), persistent=False)  # of the last call, for logging
        self.ahead: list[PowerIteration] = []
        """At most one, done before the next call instead of in it (`normalise_together`)."""
        self.handed: list[PowerIteration] = []
        """At most one, for the next `normalise_together` (`iterate_together`)."""

    def iterate(self) -> PowerIteration:
        """One power iteration, stored in training mode."""
        return self.ahead.pop() if self.ahead else power_iterations([self])[0]

    def effective_weight(self) -> Tensor:
        """The normalised weight; one power iteration, stored in training mode."""
        if self.folded:
            return self.weight
        iteration = self.iterate()
        return normalised_weights([self], [iteration])[0] if iteration.weight is None else iteration.weight

    def _factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of a product of x and the normalised weight, of which one was divided."""
        if self.folded or self.grouped or x.numel() >= self.weight.numel():
            return x, self.effective_weight()
        iteration = self.iterate()
        return x / iteration.divisor, _UndividedWeight.apply(self.weight, iteration)

    @torch.no_grad()
    def fold(self) -> None:
        """Replace the weight by its normalised value for good (sampling and export)."""
        if not self.folded:
            self.weight.copy_(self.effective_weight())
            self.take_as_folded()

    def take_as_folded(self) -> None:
        """Take the weight as it stands for the normalised one, as it does in a file that was written folded."""
        if not self.folded:
            self.folded = True
            del self.vector


@torch.no_grad()
def power_iterations(layers: Sequence[SpectralWeight]) -> list[PowerIteration]:
    """One power iteration of each of the layers, which have one configuration; stored in training mode.

    Together they take half of the time of one after the other: of a small weight, dispatch is most of it.
    """
    config, weights = layers[0].config, [layer.weight for layer in layers]
    # In the weights' precision: bf16 vectors would never converge.
    with without_autocast(weights[0].device):
        matrices = [_as_matrix(weight) for weight in weights]
        if config.vector == "input":
            matrices = [matrix.mT for matrix in matrices]
        stored = [layer.vector for layer in layers]
        others, products = [], []
        for matrix, vector in zip(matrices, stored, strict=True):
            others.append(torch.mv(matrix.mT, vector))
            products.append(torch.mv(matrix, others[-1]))  # normalised below: here the matrix is still in the cache
        other_norms, product_norms = torch.stack(torch._foreach_norm(others + products)).split(len(layers))
        other_norms = other_norms.clamp_min(config.eps)
        norms = product_norms / other_norms
        clamped = norms.clamp_min(config.eps)
        torch._foreach_div_(others + products, torch.cat([other_norms, other_norms * clamped]).unbind())
        sigmas = norms.square() / clamped  # of a product and its normalised form
        divisor = sigmas
        if any(layer.clamp for layer in layers):
            bounds = [1.0 if layer.clamp else 0.0 for layer in layers]
            divisor = torch.stack(torch._foreach_clamp_min(sigmas.unbind(), bounds))
        factors = (divisor == sigmas) / -divisor
        torch._foreach_copy_([layer.sigma for layer in layers], sigmas.unbind())
        if layers[0].training:
            torch._foreach_copy_(stored, products)
        us, vs = (products, others) if config.vector == "output" else (others, products)
        slopes = torch._foreach_mul(us, factors.unbind())
    return [PowerIteration(*parts) for parts in zip(divisor.unbind(), slopes, vs, strict=True)]


def normalised_weights(layers: Sequence[SpectralWeight], iterations: Sequence[PowerIteration]) -> Sequence[Tensor]:
    """The normalised weights of the layers by power iterations that were done."""
    weights: list[Tensor] = [layer.weight for layer in layers]
    # Without autocast: 1 / sigma rounded to bf16 would scale a weight by up to 0.4 %.
    with without_autocast(weights[0].device):
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            normalised: Sequence[Tensor] = _NormalisedWeights.apply(iterations, *weights)
            return normalised
        divisors: list[Tensor] = [iteration.divisor for iteration in iterations]
        return torch._foreach_div(weights, divisors)


def normalised_layers(module: nn.Module) -> list[SpectralWeight]:
    """The layers inside a module whose forward does a power iteration."""
    return [layer for layer in module.modules() if isinstance(layer, SpectralWeight) and not layer.folded]


def iterate_together(layers: Sequence[SpectralWeight]) -> None:
    """Do the power iterations for the next forwards of one or several networks in one go: half of the calls for two."""
    layers = [layer for layer in layers if not layer.folded]
    if layers:
        for layer, iteration in zip(layers, power_iterations(layers), strict=True):
            layer.handed[:] = [iteration]


def normalise_together(network: nn.Module) -> None:
    """Do the power iterations of a network's next forward and normalise its small weights, each in one go."""
    layers = normalised_layers(network)
    if not layers:
        return
    handed = all(layer.handed for layer in layers)
    done = [layer.handed.pop() for layer in layers] if handed else power_iterations(layers)
    iterations = dict(zip(layers, done, strict=True))
    grouped = [layer for layer in layers if layer.grouped]
    if grouped:
        weights = normalised_weights(grouped, [iterations[layer] for layer in grouped])
        for layer, weight in zip(grouped, weights, strict=True):
            iterations[layer] = iterations[layer]._replace(weight=weight)
    for layer, iteration in iterations.items():
        layer.ahead[:] = [iteration]


class SpectralLinear(SpectralWeight):
    """``x @ (W / sigma).mT + b``. Shapes: x [B, in] -> [B, out]."""

    def __init__(self, inputs: int, outputs: int, config: SpectralNormConfig, bias: bool = True) -> None:
        super().__init__((outputs, inputs), config)
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        x, weight = self._factors(x)
        return F.linear(x, weight, self.bias)


def spectral_products(layers: Sequence[nn.Module], x: Tensor, indices: Sequence[int]) -> Sequence[Tensor]:
    """``layer(x[index])`` of linear layers without bias, in one go.

    Shapes: x [N, B, in], few rows -> [B, out] each. Differentiable once.
    """
    spectral = [layer for layer in layers if isinstance(layer, SpectralLinear) and not layer.folded]
    if len(spectral) < len(layers):
        return [layer(x[index]) for layer, index in zip(layers, indices, strict=True)]
    weights = [layer.weight for layer in spectral]
    with without_autocast(x.device):
        iterations = [layer.iterate() for layer in spectral]
        products: Sequence[Tensor] = _DividedProducts.apply(x.to(weights[0].dtype), indices, iterations, *weights)
    return products


class SpectralEmbedding(SpectralWeight):
    """A class table divided by its largest singular value. Shapes: labels [B] -> [B, features]."""

    def __init__(self, classes: int, features: int, config: SpectralNormConfig) -> None:
        super().__init__((classes, features), config)

    def forward(self, labels: Tensor) -> Tensor:
        if self.folded or self.grouped:
            return F.embedding(labels, self.effective_weight())
        iteration = self.iterate()  # the rows are divided, not the table
        return F.embedding(labels, _UndividedWeight.apply(self.weight, iteration)) / iteration.divisor


class SpectralConv2d(SpectralWeight):
    """A spectrally normalised convolution with 'same' padding, after nearest 2x upsampling or before 2x2 pooling.

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
        merged = resample != "none" and kernel == 3
        self.grouped = self.grouped and not merged
        self._spread = resampling_taps(resample) if merged else None
        self._fixed: Tensor | None = None

    def fix(self) -> None:
        """Make the merged kernel of a folded weight for good: for an export, whose weights never change."""
        if self._spread is not None:
            self._fixed = self._merged(self._spread)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SpectralConv2d":
        """Whatever moves the weights, by ``to()`` and the like: the taps follow, also out of memory never written."""
        super()._apply(fn, recurse)
        if self._spread is not None:
            self._spread = resampling_taps(self.resample).to(self.weight)
        return self

    def _merged(self, spread: Tensor) -> Tensor:
        """The 4x4 kernel of the normalised weight."""
        if self._fixed is not None:
            return self._fixed
        up = self.resample == "up"
        if self.folded:
            return resampling_kernel(self.weight, spread, up)
        with without_autocast(self.weight.device):
            kernel: Tensor = _MergedKernel.apply(self.weight, self.iterate(), spread, up)
        return kernel

    def forward(self, x: Tensor) -> Tensor:
        if self._spread is not None:
            convolution = F.conv_transpose2d if self.resample == "up" else F.conv2d
            return convolution(x, self._merged(self._spread), self.bias, stride=2, padding=1)
        x, kernel = self._factors(F.avg_pool2d(x, 2) if self.resample == "down" else x)
        y = F.conv2d(x, kernel, self.bias, padding=self.weight.shape[-1] // 2)
        return F.interpolate(y, scale_factor=2, mode="nearest") if self.resample == "up" else y
