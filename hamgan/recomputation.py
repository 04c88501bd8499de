"""Activation checkpointing (Chen et al. 2016): residual blocks keep their inputs only and run again in backward."""

from types import TracebackType

from torch import Tensor, is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint

from hamgan.layers import BatchNorm
from hamgan.spectral import SpectralWeight


class _Run:
    """A run of a block on kernels made beforehand; the second one leaves the running moments alone."""

    def __init__(self, block: nn.Module, kernels: dict[SpectralWeight, Tensor], again: bool) -> None:
        self.kernels = kernels
        self.norms = [module for module in block.modules() if isinstance(module, BatchNorm)] if again else []

    def __enter__(self) -> None:
        for layer, kernel in self.kernels.items():
            layer.held = kernel
        for norm in self.norms:
            norm.frozen = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for layer in self.kernels:
            layer.held = None
        for norm in self.norms:
            norm.frozen = False


def run_block(block: nn.Module, *inputs: Tensor) -> Tensor:
    """``block(*inputs)``, whose intermediate results are dropped and computed again in backward.

    Singular vectors and running moments move once, as without checkpointing, and the numbers are the same bit by bit:
    the normalised kernels, which are small, are made before the block and kept.
    """
    if is_grad_enabled():
        kernels = {layer: layer.kernel() for layer in block.modules() if isinstance(layer, SpectralWeight)}
        y: Tensor = checkpoint(
            block,
            *inputs,
            use_reentrant=False,
            context_fn=lambda: (_Run(block, kernels, again=False), _Run(block, kernels, again=True)),
            preserve_rng_state=False,
        )
    else:
        y = block(*inputs)
    return y
