"""Keep mixed precision away from what needs float32."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off on ``device`` where it is on; the meta device has none, and autocast refuses it.

    Where it is off nothing is entered: a context takes as long as two small operators, and torch.export cannot save
    every region that switches autocast.
    """
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
