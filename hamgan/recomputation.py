"""Activation checkpointing (Chen et al. 2016): residual blocks keep their inputs only and run again in backward."""

from types import TracebackType

from torch import Tensor, is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint

from hamgan.layers import BatchNorm
from hamgan.spectral import PowerIteration, SpectralWeight, normalised_layers


class _Run:
    """A run of a block on power iterations made beforehand; the second one leaves the running moments alone."""

    def __init__(self, block: nn.Module, iterations: dict[SpectralWeight, PowerIteration], again: bool) -> None:
        self.iterations = iterations
        self.norms = [module for module in block.modules() if isinstance(module, BatchNorm)] if again else []

    def __enter__(self) -> None:
        for layer, iteration in self.iterations.items():
            layer.ahead[:] = [iteration]
        for norm in self.norms:
            norm.frozen = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for layer in self.iterations:
            layer.ahead.clear()
        for norm in self.norms:
            norm.frozen = False


def run_block(block: nn.Module, *inputs: Tensor) -> Tensor:
    """``block(*inputs)``, whose intermediate results are dropped and computed again in backward.

    Singular vectors and running moments move once, as without checkpointing, and the numbers are the same bit by bit:
    power iterations are done before the block and kept.
    """
    if is_grad_enabled():
        iterations = {layer: layer.iterate() for layer in normalised_layers(block)}
        y: Tensor = checkpoint(
            block,
            *inputs,
            use_reentrant=False,
            context_fn=lambda: (_Run(block, iterations, again=False), _Run(block, iterations, again=True)),
            preserve_rng_state=False,
        )
    else:
        y = block(*inputs)
    return y
