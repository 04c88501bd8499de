"""Merge 3x3 kernels with nearest 2x up-sampling in front of them or 2x2 average pooling behind them."""

from typing import Literal

import torch
from torch import Tensor

Resample = Literal["none", "up", "down"]

# Rows: taps of the 4x4 kernel along one axis; columns: taps of the 3x3 kernel that fall on them.
# Nearest 2x up-sampling then a 3-tap kernel w is a stride-2 transposed convolution with (w2, w1+w2, w0+w1, w0) ...
_UP_TAPS = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
# ... and a 3-tap kernel then averaging of 2 is a stride-2 convolution with (w0, w0+w1, w1+w2, w2) / 2.
_DOWN_TAPS = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]]) / 2


def resampling_taps(resample: Resample) -> Tensor:
    """Return which taps of a 3x3 kernel make up each tap of its 4x4 one: [16, 9], on the CPU."""
    taps = _UP_TAPS if resample == "up" else _DOWN_TAPS
    return torch.kron(taps, taps)


def resampling_kernel(weight: Tensor, taps: Tensor, up: bool) -> Tensor:
    """Return the 4x4 kernel that does a 3x3 convolution and 2x up-sampling or 2x2 average pooling at once.

    Shapes: weight [out, in, 3, 3] -> [in, out, 4, 4] for conv_transpose2d (up), [out, in, 4, 4] for conv2d (down);
    ``taps`` [16, 9] as `resampling_taps` returns them. Exact, for the padding of either form is zero at the same
    places. Takes 4/9 of the multiplications.
    """
    outputs, inputs = weight.shape[:2]
    if up:  # One product of one copy: half the time of a product per input channel, which copies them one by one.
        kernel = taps @ weight.permute(2, 3, 1, 0).reshape(9, -1)
        return kernel.view(4, 4, inputs, outputs).permute(2, 3, 0, 1)
    flat = weight.permute(0, 2, 3, 1).reshape(outputs, 9, inputs)  # a view of a channels-last weight
    return (taps @ flat).view(outputs, 4, 4, inputs).permute(0, 3, 1, 2)
