"""Where mixed precision does not reach."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off on ``device``; free where it is off already (and on the meta device, which has none)."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()  # entering a context takes as long as two small operators
    return torch.autocast(device.type, enabled=False)
