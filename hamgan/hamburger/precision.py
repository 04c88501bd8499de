"""Turn off mixed precision and TF32 for computations that need float32."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Disable autocast on ``device`` if it is enabled; the meta device has none, and autocast refuses it.

    If it is disabled already, the context does nothing: a real one takes as long as two small operators, and
    torch.export cannot save every region that switches autocast.
    """
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def set_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 in float32 products and convolutions on NVIDIA GPUs; torch's default allows convolutions.

    The rule of this project: training steps follow ``train.tf32``, evaluations follow ``--tf32``, which labels their
    numbers, and everything else is float32, including images drawn while training.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def using_tf32(allowed: bool) -> Iterator[None]:
    """Apply `set_tf32` inside this context and restore the previous setting after it."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    set_tf32(allowed)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
