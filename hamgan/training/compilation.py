"""Decide whether torch.compile compiles the networks of a run, and explain its failures."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch

from hamgan.config import TrainConfig
from hamgan.errors import ConfigError
from hamgan.training.objectives import has_double_backward

PROVED = ((2, 8), (2, 15))
"""First and last version of torch for which compiled gradients of all parameters were compared with eager ones."""


def is_compiled(train: TrainConfig, device: torch.device) -> bool:
    """Return whether to compile; ``auto`` does so on GPUs. Raises ConfigError if ``true`` is not possible."""
    found = obstacle(device) if train.compile else None
    if train.compile == "auto":
        return device.type == "cuda" and found is None
    if found:
        raise ConfigError(f"train.compile: true is not possible here: {found}; take auto or false")
    return train.compile


def obstacle(device: torch.device) -> str | None:
    """Return the reason why nothing can be compiled on a device, or None."""
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if not PROVED[0] <= release <= PROVED[1]:
        first, last = (".".join(map(str, version)) for version in PROVED)
        return f"compiled gradients were checked on torch {first} to {last}, and this is {torch.__version__}"
    if device.type == "cuda" and find_spec("triton") is None:
        return "the package triton is not installed"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (7, 0):
        return "triton needs a GPU of compute capability 7.0 or above"
    return None


def describe_compilation(train: TrainConfig, device: torch.device) -> str:
    """Return what is compiled, or why nothing is."""
    if not is_compiled(train, device):
        return f"nothing, as {obstacle(device) or 'auto compiles on GPUs only'}" if train.compile else "nothing"
    if has_double_backward(train):
        return "G, in the first step, which takes minutes; not D, whose penalty needs second derivatives"
    return "G and D, in the first step, which takes minutes"


@contextmanager
def explained_failures() -> Iterator[None]:
    """Raise ConfigError, which names the way around, where the compiler fails in this context."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = " ".join(str(error).split("\n\n")[0].split())[:300] or type(error).__name__
        raise ConfigError(
            f"torch.compile of torch {torch.__version__} failed: {reason}; train without it: --train.compile false"
        ) from error
