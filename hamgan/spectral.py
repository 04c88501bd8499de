"""Spectrally normalised layers, convolutions with resampling among them."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hamgan.config import SpectralNormConfig
from hamgan.precision import without_autocast

Resample = Literal["none", "up", "down"]

# Rows: taps of the 4x4 kernel along one axis; columns: taps of the 3x3 kernel that fall on them.
# Nearest 2x upsampling then a 3-tap kernel w is a stride-2 transposed convolution with (w2, w1+w2, w0+w1, w0) ...
_UP_TAPS = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
# ... and a 3-tap kernel then averaging of 2 is a stride-2 convolution with (w0, w0+w1, w1+w2, w2) / 2.
_DOWN_TAPS = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]) / 2


def _normalise(vector: Tensor, eps: float) -> Tensor:
    return vector / torch.linalg.vector_norm(vector).clamp_min(eps)


class _NormalisedKernel(torch.autograd.Function):
    """The kernel of W / sigma with sigma = u^T W v and u, v constant; the closed-form gradient avoids sigma's graph.

    With ``spread`` the kernel is `resampling_kernel`'s, which is divided on the way without a pass of its own.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor, clamp: bool, spread: Tensor | None, up: bool
    ) -> Tensor:
        divisor = sigma.clamp_min(1.0) if clamp else sigma
        ctx.up = up
        ctx.save_for_backward(weight, u, v, divisor, (sigma > 1.0) if clamp else None, spread)
        return weight / divisor if spread is None else resampling_kernel(weight, spread / divisor, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, u, v, divisor, active, spread = ctx.saved_tensors
        if spread is None:
            result = (grad / divisor).contiguous(memory_format=_memory_format(grad))
        else:
            result = _resampled_gradient(grad, spread / divisor, ctx.up)
        # A dot product needs no memory for its products.
        along_sigma = -torch.dot(_as_matrix(result).flatten(), _as_matrix(weight).flatten()) / divisor
        if active is not None:  # max(1, sigma) is constant while sigma is below 1
            along_sigma = along_sigma * active
        _as_matrix(result).addr_(u * along_sigma, v)
        return result, None, None, None, None, None, None


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
        self._baked: dict[str, Tensor] = {}
        self.held: Tensor | None = None
        """A kernel that `forward` takes instead of making one (`recomputation`)."""

    def _power_iteration(self) -> tuple[Tensor, Tensor, Tensor]:
        """Singular vectors u [out] and v [columns], and sigma = u^T W v."""
        matrix, eps = _as_matrix(self.weight), self.config.eps
        stored: Tensor = self.get_buffer("vector")
        if self.config.vector == "output":
            v = _normalise(matrix.mT @ stored, eps)
            product = matrix @ v
            u = _normalise(product, eps)
            sigma = torch.dot(u, product)
            updated = u
        else:
            u = _normalise(matrix @ stored, eps)
            product = matrix.mT @ u
            v = _normalise(product, eps)
            sigma = torch.dot(v, product)
            updated = v
        if self.training:
            stored.copy_(updated)
        return u, v, sigma

    def kernel(self) -> Tensor:
        """What `forward` multiplies with: the normalised weight, or the one that is held."""
        return self.effective_weight() if self.held is None else self.held

    def effective_weight(self) -> Tensor:
        """The normalised weight; one power iteration, stored in training mode."""
        return self.weight if self.folded else self._normalised(None)

    def _normalised(self, spread: Tensor | None, up: bool = False) -> Tensor:
        # The iteration stays in the weight's precision: bf16 vectors would never converge. The kernel, merged or not,
        # too: 1 / sigma rounded to bf16 would scale it by up to 0.4 %.
        with without_autocast(self.weight.device):
            with torch.no_grad():
                u, v, sigma = self._power_iteration()
                self.get_buffer("sigma").copy_(sigma)
            kernel: Tensor = _NormalisedKernel.apply(self.weight, u, v, sigma, self.clamp, spread, up)
        return kernel

    @torch.no_grad()
    def fold(self) -> None:
        """Replace the weight by its normalised value for good (sampling and export)."""
        if not self.folded:
            self.weight.copy_(self.effective_weight())
            self.take_as_folded()
        self._baked.clear()

    def take_as_folded(self) -> None:
        """Take the weight as it stands for the normalised one, as it does in a file that was written folded."""
        if not self.folded:
            self.folded = True
            del self.vector


class SpectralLinear(SpectralWeight):
    """``x @ (W / sigma).mT + b``. Shapes: x [B, in] -> [B, out]."""

    def __init__(self, inputs: int, outputs: int, config: SpectralNormConfig, bias: bool = True) -> None:
        super().__init__((outputs, inputs), config)
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.kernel(), self.bias)


class SpectralEmbedding(SpectralWeight):
    """A class table divided by its largest singular value. Shapes: labels [B] -> [B, features]."""

    def __init__(self, classes: int, features: int, config: SpectralNormConfig) -> None:
        super().__init__((classes, features), config)

    def forward(self, labels: Tensor) -> Tensor:
        return F.embedding(labels, self.kernel())


def resampling_taps(resample: Resample) -> Tensor:
    """Which taps of a 3x3 kernel make up each tap of its 4x4 one: [16, 9], on the CPU."""
    taps = _UP_TAPS if resample == "up" else _DOWN_TAPS
    return torch.kron(taps, taps)


def resampling_kernel(weight: Tensor, spread: Tensor, up: bool) -> Tensor:
    """The 4x4 kernel that does a 3x3 convolution and 2x nearest upsampling or 2x2 average pooling at once.

    Shapes: weight [out, in, 3, 3] -> [in, out, 4, 4] for conv_transpose2d (up), [out, in, 4, 4] for conv2d (down);
    ``spread`` [16, 9] are `resampling_taps`. Exact: the padding of either form is zero at the same places. 4/9 of the
    multiplications (up), 4/9 (down).
    """
    outputs, inputs = weight.shape[:2]
    if up:  # One product of one copy: half the time of a product per input channel, which copies them one by one.
        kernel = spread @ weight.permute(2, 3, 1, 0).reshape(9, -1)
        return kernel.view(4, 4, inputs, outputs).permute(2, 3, 0, 1)
    flat = weight.permute(0, 2, 3, 1).reshape(outputs, 9, inputs)  # a view of a channels-last weight
    return (spread @ flat).view(outputs, 4, 4, inputs).permute(0, 3, 1, 2)


def _resampled_gradient(grad: Tensor, spread: Tensor, up: bool) -> Tensor:
    """The gradient of a channels-last weight [out, in, 3, 3] from that of its 4x4 kernel."""
    flat = grad.permute(0, 2, 3, 1).flatten(1, 2)  # [in, 16, out] up, [out, 16, in] down
    flat = spread.mT @ flat
    flat = flat.permute(2, 1, 0).contiguous() if up else flat
    return flat.unflatten(1, (3, 3)).permute(0, 3, 1, 2)


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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SpectralConv2d":
        """Whatever moves the weights, by ``to()`` and the like: the taps follow, also out of memory never written."""
        super()._apply(fn, recurse)
        if self._spread is not None:
            self._spread = resampling_taps(self.resample).to(self.weight)
        return self

    def kernel(self) -> Tensor:
        """What `forward` multiplies with: the normalised weight, or the merged 4x4 kernel of it."""
        spread, up = self._spread, self.resample == "up"
        if spread is None or self.held is not None:
            return super().kernel()
        if not self.folded:
            return self._normalised(spread, up)
        if torch.is_grad_enabled():
            return resampling_kernel(self.weight, spread, up)
        if "kernel" not in self._baked:
            self._baked["kernel"] = resampling_kernel(self.weight, spread, up)
        return self._baked["kernel"]

    def forward(self, x: Tensor) -> Tensor:
        size = self.weight.shape[-1]
        if self.resample == "none":
            return F.conv2d(x, self.kernel(), self.bias, padding=size // 2)
        if size == 1:
            if self.resample == "down":
                return F.conv2d(F.avg_pool2d(x, 2), self.kernel(), self.bias)
            return F.interpolate(F.conv2d(x, self.kernel(), self.bias), scale_factor=2, mode="nearest")
        if self.resample == "up":
            return F.conv_transpose2d(x, self.kernel(), self.bias, stride=2, padding=1)
        return F.conv2d(x, self.kernel(), self.bias, stride=2, padding=1)
