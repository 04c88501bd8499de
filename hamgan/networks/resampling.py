"""Resample maps by 2, and merge 3x3 kernels with the resampling before or after them."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hamgan.hamburger.precision import without_autocast

Resample = Literal["none", "up", "down"]

# Rows: taps of the 4x4 kernel along one axis; columns: taps of the 3x3 kernel that fall on them.
# Nearest 2x up-sampling then a 3-tap kernel w is a stride-2 transposed convolution with (w2, w1+w2, w0+w1, w0) ...
_UP_TAPS = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
# ... and a 3-tap kernel then averaging of 2 is a stride-2 convolution with (w0, w0+w1, w1+w2, w2) / 2.
_DOWN_TAPS = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]) / 2


def resampling_taps(resample: Resample) -> Tensor:
    """Return the matrix [16, 9], on the CPU, that maps the taps of a 3x3 kernel to those of its merged 4x4 kernel."""
    taps = _UP_TAPS if resample == "up" else _DOWN_TAPS
    return torch.kron(taps, taps)


def resampling_kernel(weight: Tensor, taps: Tensor, up: bool) -> Tensor:
    """Return the 4x4 kernel that merges a 3x3 convolution with 2x up-sampling or 2x2 average pooling.

    Shapes: weight [out, in, 3, 3] -> [in, out, 4, 4] for conv_transpose2d (up), [out, in, 4, 4] for conv2d (down);
    ``taps`` [16, 9] from `resampling_taps`. Exact, because both forms pad with zeros at the same places. Needs 4/9 of
    the multiplications.
    """
    outputs, inputs = weight.shape[:2]
    if up:  # One product of one copy takes half the time of a product per input channel.
        kernel = taps @ weight.permute(2, 3, 1, 0).reshape(9, -1)
        return kernel.view(4, 4, inputs, outputs).permute(2, 3, 0, 1)
    flat = weight.permute(0, 2, 3, 1).reshape(outputs, 9, inputs)  # a view of a channels-last weight
    return (taps @ flat).view(outputs, 4, 4, inputs).permute(0, 3, 1, 2)


def upsample(x: Tensor) -> Tensor:
    """Repeat each pixel 2 x 2 times, in the type of x. Shapes: [B, C, H, W] -> [B, C, 2H, 2W]."""
    if _is_eager_on_gpu(x):
        return upsample_by_view(x)
    # On a GPU autocast would convert it, and thereby all following feature maps, to float32.
    with without_autocast(x.device):
        return F.interpolate(x, scale_factor=2, mode="nearest")


def average_pool(x: Tensor) -> Tensor:
    """Average 2 x 2 pixels. Shapes: [B, C, H, W] -> [B, C, H/2, W/2]."""
    return average_pool_by_view(x) if _is_eager_on_gpu(x) else F.avg_pool2d(x, 2)


def _is_eager_on_gpu(x: Tensor) -> bool:
    """Return whether to resample by views: CUDA's own kernels move channels-last maps at a tenth of the memory's speed.

    Compiled code does not need it, as the compiler fuses the operators.
    """
    return x.is_cuda and not torch.compiler.is_compiling()


def upsample_by_view(x: Tensor) -> Tensor:
    """Do the same as `upsample` by one copy of channels-last rows; its gradient is one sum."""
    rows = x.permute(0, 2, 3, 1)
    batch, height, width, channels = rows.shape
    repeated = rows[:, :, None, :, None].expand(batch, height, 2, width, 2, channels)
    return repeated.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


def average_pool_by_view(x: Tensor) -> Tensor:
    """Do the same as `average_pool` by one mean of channels-last rows; its gradient is one product."""
    rows = x.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    means: Tensor = rows.mean((2, 4))
    return means.permute(0, 3, 1, 2)
