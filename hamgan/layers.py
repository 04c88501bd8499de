"""Layers of both networks: spectral normalisation, resampling convolutions, batch norm, attention, residual blocks."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hamgan.config import NormConfig, SpectralNormConfig

Resample = Literal["none", "up", "down"]

# Rows: taps of the 4x4 kernel along one axis; columns: taps of the 3x3 kernel that fall on them.
# Nearest 2x upsampling then a 3-tap kernel w is a stride-2 transposed convolution with (w2, w1+w2, w0+w1, w0) ...
_UP_TAPS = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
# ... and a 3-tap kernel then averaging of 2 is a stride-2 convolution with (w0, w0+w1, w1+w2, w2) / 2.
_DOWN_TAPS = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]) / 2


def _normalise(vector: Tensor, eps: float) -> Tensor:
    return vector / vector.norm().clamp_min(eps)


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

    def effective_weight(self) -> Tensor:
        """The normalised weight; one power iteration, stored in training mode."""
        return self.weight if self.folded else self._normalised(None)

    def _normalised(self, spread: Tensor | None, up: bool = False) -> Tensor:
        # The iteration stays in the weight's precision: bf16 vectors would never converge.
        with torch.no_grad(), torch.autocast(self.weight.device.type, enabled=False):
            u, v, sigma = self._power_iteration()
            self.get_buffer("sigma").copy_(sigma)
        # A merged kernel too: 1 / sigma rounded to bf16 would scale it by up to 0.4 %.
        with torch.autocast(self.weight.device.type, enabled=False):
            kernel: Tensor = _NormalisedKernel.apply(self.weight, u, v, sigma, self.clamp, spread, up)
        return kernel

    @torch.no_grad()
    def fold(self) -> None:
        """Replace the weight by its normalised value for good (sampling and export)."""
        if not self.folded:
            self.weight.copy_(self.effective_weight())
            self.folded = True
            del self.vector
        self._baked.clear()


class SpectralLinear(SpectralWeight):
    """``x @ (W / sigma).mT + b``. Shapes: x [B, in] -> [B, out]."""

    def __init__(self, inputs: int, outputs: int, config: SpectralNormConfig, bias: bool = True) -> None:
        super().__init__((outputs, inputs), config)
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.effective_weight(), self.bias)


class SpectralEmbedding(SpectralWeight):
    """A class table divided by its largest singular value. Shapes: labels [B] -> [B, features]."""

    def __init__(self, classes: int, features: int, config: SpectralNormConfig) -> None:
        super().__init__((classes, features), config)

    def forward(self, labels: Tensor) -> Tensor:
        return F.embedding(labels, self.effective_weight())


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
        """What runs: the normalised weight, or the merged 4x4 kernel of it."""
        spread, up = self._spread, self.resample == "up"
        if spread is None:
            return self.effective_weight()
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
            return F.conv2d(x, self.effective_weight(), self.bias, padding=size // 2)
        if size == 1:
            if self.resample == "down":
                return F.conv2d(F.avg_pool2d(x, 2), self.effective_weight(), self.bias)
            return F.interpolate(F.conv2d(x, self.effective_weight(), self.bias), scale_factor=2, mode="nearest")
        if self.resample == "up":
            return F.conv_transpose2d(x, self.kernel(), self.bias, stride=2, padding=1)
        return F.conv2d(x, self.kernel(), self.bias, stride=2, padding=1)


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class BatchNorm(nn.Module):
    """Batch normalisation without gain and bias, over the batches of all processes if so configured.

    Shapes: x [B, C, H, W] -> the same. Running statistics follow `NormConfig`; see `standing_statistics` for others.
    """

    def __init__(self, channels: int, config: NormConfig) -> None:
        super().__init__()
        self.eps, self.momentum = config.eps, config.momentum
        self.biased, self.cross_replica = config.biased, config.cross_replica
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def normalise(self, x: Tensor) -> Tensor:
        """(x - mean) / sqrt(var + eps) by the moments of the batch (training) or the running ones (evaluation)."""
        mean, var = self.get_buffer("running_mean"), self.get_buffer("running_var")
        if not self.training:
            return F.batch_norm(x, mean, var, eps=self.eps)
        if self.cross_replica and _processes() > 1:
            return self._normalise_across(x)
        if not self.biased:
            return F.batch_norm(x, mean, var, training=True, momentum=self.momentum, eps=self.eps)
        batch_mean, batch_var = torch.zeros_like(mean), torch.zeros_like(var)
        y = F.batch_norm(x, batch_mean, batch_var, training=True, momentum=1.0, eps=self.eps)
        count = x.numel() // x.shape[1]
        self._update(batch_mean, batch_var * ((count - 1) / count))
        return y

    def _update(self, mean: Tensor, var: Tensor) -> None:
        self.get_buffer("running_mean").lerp_(mean, self.momentum)
        self.get_buffer("running_var").lerp_(var, self.momentum)

    def _normalise_across(self, x: Tensor) -> Tensor:
        processes = _processes()
        count = x.numel() // x.shape[1] * processes
        values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        var, mean = torch.var_mean(values, dim=(0, 2, 3), correction=0)
        # One differentiable all-reduce carries both moments; every process holds as many images.
        moments = dist_nn.all_reduce(torch.stack([mean, var + mean * mean])) / processes
        mean = moments[0]
        var = (moments[1] - mean * mean).clamp_min(0.0)
        with torch.no_grad():
            self._update(mean, var if self.biased else var * (count / (count - 1)))
        scale = torch.rsqrt(var + self.eps)
        return (values * _per_channel(scale) - _per_channel(mean * scale)).to(x.dtype)

    def affine(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        """normalise(x) * gain + bias. Shapes: gain and bias [B, C] or [C]."""
        if self.training:
            return torch.addcmul(_per_channel(bias.to(x.dtype)), self.normalise(x), _per_channel(gain.to(x.dtype)))
        # One pass over x instead of two; the merged factors are taken in full precision.
        scale, shift = self.merge(gain, bias)
        return torch.addcmul(_per_channel(shift.to(x.dtype)), x, _per_channel(scale.to(x.dtype)))

    def merge(self, gain: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """(scale, shift) with ``x * scale + shift`` = evaluation mode's ``normalise(x) * gain + bias``."""
        scale = gain * torch.rsqrt(self.get_buffer("running_var") + self.eps)
        return scale, bias - self.get_buffer("running_mean") * scale

    def gain_and_bias(self, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What `affine` takes, [C] or [B, C]; the kinds of conditioning differ in it."""
        raise NotImplementedError


def _per_channel(values: Tensor) -> Tensor:
    """[C] or [B, C] -> [.., C, 1, 1]."""
    return values[..., None, None]


class PlainBatchNorm(BatchNorm):
    """Batch normalisation with one learnt gain (init 1) and bias (init 0) per channel."""

    def __init__(self, channels: int, config: NormConfig) -> None:
        super().__init__(channels, config)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def gain_and_bias(self, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The learnt ones, whatever the condition."""
        return self.gain, self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.affine(x, self.gain, self.bias)


class SharedConditionBatchNorm(BatchNorm):
    """``bn(x) * (1 + gain(c)) + bias(c)``, gain and bias linear in the condition (BigGAN, appendix B).

    Shapes: x [B, C, H, W], condition [B, dim] = cat([class embedding, z chunk]).
    """

    def __init__(self, channels: int, condition_dim: int, norm: NormConfig, spectral: SpectralNormConfig) -> None:
        super().__init__(channels, norm)
        self.gain = SpectralLinear(condition_dim, channels, spectral, bias=False)
        self.bias = SpectralLinear(condition_dim, channels, spectral, bias=False)

    def gain_and_bias(self, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Linear in the condition [B, dim]."""
        return 1.0 + self.gain(condition), self.bias(condition)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.affine(x, *self.gain_and_bias(condition))


def class_rows(table: Tensor, labels: Tensor) -> Tensor:
    """Rows [B, C] of a class table [classes, C]: labels are indices [B] (int64), or weights [B, classes] of a blend."""
    return F.embedding(labels, table) if labels.dim() == 1 else labels.to(table.dtype) @ table


class PerClassBatchNorm(BatchNorm):
    """``bn(x) * gamma[label] + beta[label]`` (Dumoulin et al. 2017; SAGAN, official HamGAN).

    Shapes: x [B, C, H, W], labels as in `class_rows`; gamma (init 1) and beta (init 0) [classes, C].
    """

    def __init__(self, channels: int, classes: int, norm: NormConfig) -> None:
        super().__init__(channels, norm)
        self.gamma = nn.Parameter(torch.ones(classes, channels))
        self.beta = nn.Parameter(torch.zeros(classes, channels))

    def gain_and_bias(self, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rows of the tables for labels."""
        assert condition is not None
        return class_rows(self.gamma, condition), class_rows(self.beta, condition)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.affine(x, *self.gain_and_bias(labels))


ConvFactory = Callable[..., SpectralConv2d]
NormFactory = Callable[[int], nn.Module]


class SelfAttention(nn.Module):
    """Non-local block with 2x2-pooled keys and values (SAGAN, section 3; BigGAN's widths C/8 and C/2).

    Shapes: x [B, C, H, W] -> the same, C divisible by 8; ``x + gate * attention(x)``, gate init 0, no 1/sqrt(d).
    """

    def __init__(self, channels: int, conv: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.query = conv(channels, channels // 8)
        self.key = conv(channels, channels // 8)
        self.value = conv(channels, channels // 2)
        self.output = conv(channels // 2, channels)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, condition: Tensor | None = None, bases: Tensor | None = None) -> Tensor:
        batch, _, height, width = x.shape  # condition and bases are for Hamburgers only
        query = self.query(x).flatten(2)
        key = F.max_pool2d(self.key(x), 2).flatten(2)
        value = F.max_pool2d(self.value(x), 2).flatten(2)
        weights = (query.mT @ key).softmax(dim=-1)
        mixed = (value @ weights.mT).view(batch, -1, height, width)
        return x + self.gate * self.output(mixed)


class GeneratorBlock(nn.Module):
    """BN, ReLU, 2x up, conv 3x3, BN, ReLU, conv 3x3, plus an up-sampled 1x1 shortcut of the raw input.

    Shapes: x [B, in, H, W] -> [B, out, 2H, 2W].
    """

    def __init__(self, inputs: int, outputs: int, conv: ConvFactory, norm: NormFactory) -> None:
        super().__init__()
        self.norm1 = norm(inputs)
        self.conv1 = conv(inputs, outputs, 3, resample="up")
        self.norm2 = norm(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.shortcut = conv(inputs, outputs, 1, resample="up")

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x, condition)))
        y = self.conv2(F.relu(self.norm2(y, condition)))
        return y + self.shortcut(x)


class DiscriminatorBlock(nn.Module):
    """ReLU (not in the first block), conv 3x3, ReLU, conv 3x3, 2x2 average pooling, plus a 1x1 shortcut.

    Shapes: x [B, in, H, W] -> [B, out, H/2, W/2], or [B, out, H, W] without ``down``. Pooling and the 1x1 shortcut
    commute, so the order in which the references apply them (first block: pool first) does not matter.
    """

    def __init__(self, inputs: int, outputs: int, conv: ConvFactory, *, down: bool, first: bool) -> None:
        super().__init__()
        self.first, self.down = first, down
        resample = "down" if down else "none"
        self.conv1 = conv(inputs, outputs, 3)
        self.conv2 = conv(outputs, outputs, 3, resample=resample)
        self.shortcut = conv(inputs, outputs, 1, resample=resample) if down or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x if self.first else F.relu(x))
        y = self.conv2(F.relu(y))
        return y + (x if self.shortcut is None else self.shortcut(x))
