"""Spectrally normalised layers, convolutions with resampling among them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hamgan.config import SpectralNormConfig
from hamgan.precision import without_autocast
from hamgan.resampling import Resample, resampling_gradient, resampling_kernel, resampling_taps


class PowerIteration(NamedTuple):
    """What a power iteration leaves for one layer: what its weight W is divided by, and the gradient of that."""

    divisor: Tensor
    """sigma = u^T W v or, with ``clamp``, max(1, sigma)."""
    slope: Tensor
    """-u / divisor [out], or zeros where the divisor is 1, whatever sigma."""
    v: Tensor
    """[columns]"""


def _add_through_divisor(grad: Tensor, weight: Tensor, slope: Tensor, v: Tensor) -> Tensor:
    """Add, in place, the gradient of W through the divisor to the one that W / divisor has with a constant divisor.

    u and v are constants. Shapes: ``weight`` [out * columns], in the order of `_as_matrix`.
    """
    matrix = _as_matrix(grad)
    # A dot product needs no memory for its products.
    matrix.addr_(slope * torch.dot(matrix.view(-1), weight), v)
    return grad


class _NormalisedKernel(torch.autograd.Function):
    """The kernel of W / divisor; the closed-form gradient avoids the graph of the power iteration.

    With ``spread`` the kernel is `resampling_kernel`'s, which is divided on the way without a pass of its own.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, iteration: PowerIteration, spread: Tensor | None, up: bool) -> Tensor:
        divisor, slope, v = iteration
        ctx.up = up
        ctx.save_for_backward(_as_matrix(weight).view(-1), divisor, slope, v, spread)
        return weight / divisor if spread is None else resampling_kernel(weight, spread / divisor, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, divisor, slope, v, spread = ctx.saved_tensors
        if spread is None:
            result = (grad / divisor).contiguous(memory_format=_memory_format(grad))
        else:
            result = resampling_gradient(grad, spread / divisor, ctx.up)
        return _add_through_divisor(result, weight, slope, v), None, None, None


class _UndividedWeight(torch.autograd.Function):
    """W as it is, for a product whose other factor is divided; its gradient gets the part through the divisor.

    That happens in place: for layers' products, whose gradient of W is memory that nothing else holds.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, iteration: PowerIteration) -> Tensor:
        ctx.save_for_backward(_as_matrix(weight).view(-1), iteration.slope, iteration.v)
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _add_through_divisor(grad.contiguous(memory_format=_memory_format(grad)), *ctx.saved_tensors), None


def _memory_format(tensor: Tensor) -> torch.memory_format:
    return torch.channels_last if tensor.dim() == 4 else torch.contiguous_format


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
        self.weight = nn.Parameter(torch.empty(shape).contiguous(memory_format=_memory_format(torch.empty(shape))))
        self.config = config
        self.clamp = config.clamp if clamp is None else clamp
        self.folded = not config.enabled
        if config.enabled:
            columns = self.weight[0].numel()
            self.register_buffer("vector", torch.randn(shape[0] if config.vector == "output" else columns))
        self.register_buffer("sigma", torch.ones(()), persistent=False)  # of the last call, for logging
        self.ahead: list[PowerIteration] = []
        """At most one, done before the next call instead of in it (`iterate_together`, `recomputation`)."""

    def iterate(self) -> PowerIteration:
        """One power iteration, stored in training mode."""
        return self.ahead.pop() if self.ahead else power_iterations([self])[0]

    def effective_weight(self) -> Tensor:
        """The normalised weight; one power iteration, stored in training mode."""
        return self.weight if self.folded else self._normalised()

    def _normalised(self, spread: Tensor | None = None, up: bool = False) -> Tensor:
        # Without autocast: 1 / sigma rounded to bf16 would scale the kernel, merged or not, by up to 0.4 %.
        with without_autocast(self.weight.device):
            kernel: Tensor = _NormalisedKernel.apply(self.weight, self.iterate(), spread, up)
        return kernel

    def _factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of a product of x and the normalised weight, of which the smaller one was divided."""
        if self.folded:
            return x, self.weight
        if x.numel() >= self.weight.numel():
            return x, self._normalised()
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
        norms = torch._foreach_clamp_min(torch._foreach_norm(others), config.eps)
        torch._foreach_div_(others, norms)
        torch._foreach_div_(products, norms)
        norms = torch._foreach_norm(products)
        clamped = torch._foreach_clamp_min(norms, config.eps)
        torch._foreach_div_(products, clamped)
        sigmas = torch.stack(norms).square() / torch.stack(clamped)  # of a product and its normalised form
        divisors = torch._foreach_clamp_min(sigmas.unbind(), [1.0 if layer.clamp else 0.0 for layer in layers])
        divisor = torch.stack(divisors)
        factors = (divisor == sigmas) / -divisor
        torch._foreach_copy_([layer.sigma for layer in layers], sigmas.unbind())
        if layers[0].training:
            torch._foreach_copy_(stored, products)
        us, vs = (products, others) if config.vector == "output" else (others, products)
        slopes = torch._foreach_mul(us, factors.unbind())
    return [PowerIteration(*parts) for parts in zip(divisors, slopes, vs, strict=True)]


def normalised_layers(module: nn.Module) -> list[SpectralWeight]:
    """The layers inside a module whose forward does a power iteration."""
    return [layer for layer in module.modules() if isinstance(layer, SpectralWeight) and not layer.folded]


def iterate_together(network: nn.Module) -> None:
    """Do the power iterations of a network's next forward in one go."""
    layers = normalised_layers(network)
    if layers:
        for layer, iteration in zip(layers, power_iterations(layers), strict=True):
            layer.ahead[:] = [iteration]


class SpectralLinear(SpectralWeight):
    """``x @ (W / sigma).mT + b``. Shapes: x [B, in] -> [B, out]."""

    def __init__(self, inputs: int, outputs: int, config: SpectralNormConfig, bias: bool = True) -> None:
        super().__init__((outputs, inputs), config)
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        x, weight = self._factors(x)
        return F.linear(x, weight, self.bias)


class SpectralEmbedding(SpectralWeight):
    """A class table divided by its largest singular value. Shapes: labels [B] -> [B, features]."""

    def __init__(self, classes: int, features: int, config: SpectralNormConfig) -> None:
        super().__init__((classes, features), config)

    def forward(self, labels: Tensor) -> Tensor:
        if self.folded:
            return F.embedding(labels, self.weight)
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
        return resampling_kernel(self.weight, spread, up) if self.folded else self._normalised(spread, up)

    def forward(self, x: Tensor) -> Tensor:
        if self._spread is not None:
            convolution = F.conv_transpose2d if self.resample == "up" else F.conv2d
            return convolution(x, self._merged(self._spread), self.bias, stride=2, padding=1)
        x, kernel = self._factors(F.avg_pool2d(x, 2) if self.resample == "down" else x)
        y = F.conv2d(x, kernel, self.bias, padding=self.weight.shape[-1] // 2)
        return F.interpolate(y, scale_factor=2, mode="nearest") if self.resample == "up" else y
