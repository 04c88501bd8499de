"""Keep mixed precision and TF32 away from what needs float32."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off on ``device`` where it is on; the meta device has none, and autocast refuses it.

    Where it is off nothing is entered: a context takes as long as two small operators, and torch.export cannot save
    every region that switches autocast.
    """
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def set_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 in float32 products and convolutions on NVIDIA GPUs; torch's default allows convolutions.

    The rule of this project: a training step follows ``train.tf32``, an evaluation ``--tf32``, which labels its
    numbers, and everything else is float32, images drawn while training among it.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def using_tf32(allowed: bool) -> Iterator[None]:
    """Let `set_tf32` hold inside this context."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    set_tf32(allowed)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
