"""Normalise feature maps over the batches of all processes, with gains and biases that depend on the class."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hamgan.config import NormConfig, SpectralNormConfig
from hamgan.distributed.group import mean_over_processes_, stack_processes, world_size
from hamgan.errors import ConfigError
from hamgan.hamburger.precision import without_autocast
from hamgan.networks.spectral_norm import SpectralLinear, Weights

LARGE = 2**20
"""A count n for which n / (n - 1) is 1 within 1e-6, and whose sum over 2,047 processes fits into 32 bits."""


class _NormaliseAcross(torch.autograd.Function):
    """Compute (x - mean) / sqrt(var + eps) with moments over all processes, and the gradient through them.

    The result has the type of x, the moments are float32 or wider. Only the normalised map is saved for backward.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
        normalised = F.batch_norm(x, mean, var, eps=eps)
        ctx.save_for_backward(normalised, torch.rsqrt(var + eps))
        return normalised

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        normalised, scale = ctx.saved_tensors
        grads, rows = _rows(grad).to(scale.dtype), _rows(normalised).to(scale.dtype)
        means = mean_over_processes_(torch.stack([grads.mean(0), (grads * rows).mean(0)]))
        result = (grads - means[0] - rows * means[1]) * scale
        return result.unflatten(0, (len(grad), *grad.shape[2:])).permute(0, 3, 1, 2).to(grad.dtype), None, None, None


class _AffineNormOnGpu(torch.autograd.Function):
    """Compute ``(x - mean) / sqrt(var + eps) * gain + bias`` with the kernels of `torch.nn.SyncBatchNorm`.

    The result has the type of x. Moments are float32, of this process or with ``across`` of all, without a wait for the
    device. Updates the running moments. Only the normalised map is saved for backward, and the sums over all images are
    computed from those over each image. Shapes: x [B, C, H, W], gain and bias [B, C, 1, 1] or [C, 1, 1].
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gain: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
        biased: bool,
        across: bool,
    ) -> Tensor:
        mean, scale = torch.batch_norm_stats(x, eps)
        means, scales = stack_processes(torch.stack([mean, scale])).unbind(1) if across else (mean[None], scale[None])
        # n enters the stored variance by n / (n - 1); otherwise only the processes' shares of n matter.
        counts = means.new_full((len(means),), LARGE if biased else x.numel() // x.shape[1])
        mean, scale = torch.batch_norm_gather_stats_with_counts(
            x, means, scales, running_mean, running_var, momentum, eps, counts
        )
        normalised = torch.batch_norm_elemt(x, None, None, mean, scale, eps)
        ctx.save_for_backward(normalised, gain, scale)
        ctx.across = across
        return torch.addcmul(bias.to(x.dtype), normalised, gain.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        normalised, gain, scale = ctx.saved_tensors
        # Sums over each image, [2, B, C, 1, 1]: the gradients of bias and gain.
        sums = torch.stack([part.sum((2, 3), True, dtype=gain.dtype) for part in (grad, grad * normalised)])
        totals = (sums * gain).sum(1).flatten(1)
        if ctx.across:
            totals = mean_over_processes_(totals)
        grad_bias, grad_gain = sums if gain.dim() == 4 else sums.sum(1)
        count = torch.full((1,), grad.numel() // grad.shape[1], dtype=torch.int32, device=grad.device)
        zero, one = torch.zeros_like(scale), torch.ones_like(scale)  # moments of the normalised map
        grad = grad * gain.to(grad.dtype)
        grad = torch.batch_norm_backward_elemt(grad, normalised, zero, one, scale, totals[0], totals[1], count)
        return grad, grad_gain, grad_bias, *[None] * 6


def _normalise_across(
    x: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float, eps: float, biased: bool
) -> Tensor:
    """Normalise x by the moments of all processes, all of which must call this, and update the running moments."""
    count = x.numel() // x.shape[1] * world_size()
    with torch.no_grad():
        mean, var = _moments(x)
        kind, mean, var = mean.dtype, mean.double(), var.double()
        # One all-reduce for both moments; every process has the same number of images. In float64, because the variance
        # is a difference of squares, which float32 would lose entirely at a mean of 1000 standard deviations.
        mean, square = mean_over_processes_(torch.stack([mean, var + mean * mean])).unbind()
        mean, var = mean.to(kind), (square - mean * mean).clamp_min(0.0).to(kind)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var if biased else var * (count / (count - 1)), momentum)
    y: Tensor = _NormaliseAcross.apply(x, mean, var, eps)
    return y


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance of every channel [C], in float32 at least."""
    values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    if torch.compiler.is_compiling():  # sums in one kernel, without a float32 map
        var, mean = torch.var_mean(values, (0, 2, 3), correction=0)
        return mean, var
    # On a CPU and a channels-last map this takes a twentieth of the time of torch.var_mean.
    mean, var = torch.batch_norm_update_stats(values, None, None, 0.0)
    return mean, var


def _rows(x: Tensor) -> Tensor:
    """Turn [B, C, H, W] into [B*H*W, C], a view of a channels-last map."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


class BatchNorm(nn.Module):
    """Normalise without gain and bias, over the batches of all processes if ``cross_replica``.

    Shapes: x [B, C, H, W] -> the same. Running statistics follow `NormConfig`; `standing_statistics` replaces them.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, config: NormConfig) -> None:
        super().__init__()
        self.eps, self.momentum = config.eps, config.momentum
        self.biased, self.cross_replica = config.biased, config.cross_replica
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def normalise(self, x: Tensor) -> Tensor:
        """Return (x - mean) / sqrt(var + eps) by moments of the batch, or by the running ones in evaluation mode."""
        mean, var = self.running_mean, self.running_var
        if not self.training:
            return F.batch_norm(x, mean, var, eps=self.eps)
        if self._across:
            return _normalise_across(x, mean, var, self.momentum, self.eps, self.biased)
        if not self.biased:
            return F.batch_norm(x, mean, var, training=True, momentum=self.momentum, eps=self.eps)
        batch_mean, batch_var = torch.zeros_like(mean), torch.zeros_like(var)
        y = F.batch_norm(x, batch_mean, batch_var, training=True, momentum=1.0, eps=self.eps)
        count = x.numel() // x.shape[1]
        mean.lerp_(batch_mean, self.momentum)
        var.lerp_(batch_var * ((count - 1) / count), self.momentum)
        return y

    @property
    def _across(self) -> bool:
        return self.cross_replica and world_size() > 1

    def affine(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        """Return normalise(x) * gain + bias. Shapes: gain and bias [B, C] or [C]."""
        if self.training and x.is_cuda and not torch.compiler.is_compiling():  # the compiler makes its own kernels
            return self._affine_on_gpu(x, gain, bias)
        if self.training:
            return torch.addcmul(_per_channel(bias.to(x.dtype)), self.normalise(x), _per_channel(gain.to(x.dtype)))
        # One pass over x instead of two; the merged factors are computed in full precision.
        scale, shift = self.merge(gain, bias)
        return torch.addcmul(_per_channel(shift.to(x.dtype)), x, _per_channel(scale.to(x.dtype)))

    def _affine_on_gpu(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        moments = self.running_mean, self.running_var, self.momentum, self.eps
        y: Tensor = _AffineNormOnGpu.apply(
            x, _per_channel(gain), _per_channel(bias), *moments, self.biased, self._across
        )
        return y

    def merge(self, gain: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return (scale, shift) such that ``x * scale + shift`` equals `affine` in evaluation mode."""
        scale = gain * torch.rsqrt(self.running_var + self.eps)
        return scale, bias - self.running_mean * scale

    def gain_and_bias(self, condition: Tensor | None, weights: Weights | None) -> tuple[Tensor, Tensor]:
        """Return gain and bias for `affine`, [C] or [B, C]; subclasses condition them in different ways."""
        raise NotImplementedError


def _per_channel(values: Tensor) -> Tensor:
    """Turn [C] or [B, C] into [.., C, 1, 1]."""
    return values[..., None, None]


class PlainBatchNorm(BatchNorm):
    """Normalise with one learnt gain (init 1) and bias (init 0) per channel."""

    def __init__(self, channels: int, config: NormConfig) -> None:
        super().__init__(channels, config)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def gain_and_bias(self, condition: Tensor | None, weights: Weights | None) -> tuple[Tensor, Tensor]:
        """Return the learnt gain and bias, whatever the condition."""
        return self.gain, self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.affine(x, self.gain, self.bias)


class SharedConditionBatchNorm(BatchNorm):
    """Compute ``bn(x) * (1 + gain(c)) + bias(c)``, gain and bias linear in the condition (BigGAN, appendix B).

    Shapes: x [B, C, H, W], condition [B, dim] = cat([class embedding, z chunk]).
    """

    def __init__(self, channels: int, condition_dim: int, norm: NormConfig, spectral: SpectralNormConfig) -> None:
        super().__init__(channels, norm)
        self.gain = SpectralLinear(condition_dim, channels, spectral, bias=False)
        self.bias = SpectralLinear(condition_dim, channels, spectral, bias=False)

    def gain_and_bias(self, condition: Tensor | None, weights: Weights | None) -> tuple[Tensor, Tensor]:
        """Return gain and bias [B, C] for the condition [B, dim], in the weights' precision."""
        assert condition is not None
        with without_autocast(condition.device):
            return 1.0 + self.gain(condition, weights), self.bias(condition, weights)

    def forward(self, x: Tensor, condition: Tensor, weights: Weights | None = None) -> Tensor:
        return self.affine(x, *self.gain_and_bias(condition, weights))


class CrossReplicaBatchNorm2d(nn.BatchNorm2d):
    """Normalise like `torch.nn.BatchNorm2d`, but in training by the moments of all processes.

    Unlike `torch.nn.SyncBatchNorm` it works on CPUs too.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        mean, var, momentum = self.running_mean, self.running_var, self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        assert mean is not None
        assert var is not None
        assert momentum is not None
        gain, bias = _per_channel(self.weight), _per_channel(self.bias)
        if x.is_cuda:
            y: Tensor = _AffineNormOnGpu.apply(x, gain, bias, mean, var, momentum, self.eps, False, True)
            return y
        normalised = _normalise_across(x, mean, var, momentum, self.eps, biased=False)
        return torch.addcmul(bias.to(x.dtype), normalised, gain.to(x.dtype))


def convert_cross_replica(network: nn.Module) -> None:
    """Replace every `torch.nn.BatchNorm2d` in a network, in place, keeping its tensors and their names.

    Raises ConfigError if the network has another layer with batch moments, which would stay those of one process.
    """
    for name, child in network.named_children():
        if type(child) is nn.BatchNorm2d:
            layer = CrossReplicaBatchNorm2d(child.num_features, child.eps, child.momentum)
            layer.__dict__.update(child.__dict__)
            setattr(network, name, layer)
        elif isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, CrossReplicaBatchNorm2d):
            kind = type(child).__name__
            raise ConfigError(f"layers of the kind {kind} do not average over processes; train on one process")
        else:
            convert_cross_replica(child)


def class_rows(table: Tensor, labels: Tensor) -> Tensor:
    """Return rows [B, C] of a class table [classes, C]; labels are indices [B], or weights [B, classes] that blend."""
    return F.embedding(labels, table) if labels.dim() == 1 else labels.to(table.dtype) @ table


class PerClassBatchNorm(BatchNorm):
    """Compute ``bn(x) * gamma[label] + beta[label]`` (Dumoulin et al. 2017; SAGAN, official HamGAN).

    Shapes: x [B, C, H, W], labels as in `class_rows`; gamma (init 1) and beta (init 0) [classes, C].
    """

    def __init__(self, channels: int, classes: int, norm: NormConfig) -> None:
        super().__init__(channels, norm)
        self.gamma = nn.Parameter(torch.ones(classes, channels))
        self.beta = nn.Parameter(torch.zeros(classes, channels))

    def gain_and_bias(self, condition: Tensor | None, weights: Weights | None) -> tuple[Tensor, Tensor]:
        """Return the rows [B, C] of gamma and beta that belong to the labels."""
        assert condition is not None
        return class_rows(self.gamma, condition), class_rows(self.beta, condition)

    def forward(self, x: Tensor, labels: Tensor, weights: Weights | None = None) -> Tensor:
        return self.affine(x, *self.gain_and_bias(labels, weights))


def batch_norm_statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the running means and variances among the tensors of a network's state."""
    return {name: value for name, value in state.items() if name.endswith((".running_mean", ".running_var"))}
