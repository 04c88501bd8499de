"""Run a decomposition as a module, which draws its initial bases and updates persistent ones."""

import contextlib
import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamgan.config import HamburgerConfig
from hamgan.distributed.group import mean_over_processes_
from hamgan.errors import ConfigError
from hamgan.hamburger.decompositions import FactorFunction, cd_factors, nmf_factors, vq_factors

EVALUATION_SEED = 0
"""Seed of the initial bases in evaluation mode, so that the output is a function of the input."""


class Ham(nn.Module):
    """Decompose tokens by NMF, VQ or CD from initial bases of its own.

    ``features`` is D: channels per head in spatial mode, height x width in channel mode; None lets a channel-mode Ham
    with random bases take any size. Random bases are drawn per sample in training; in evaluation all samples share one
    fixed draw. Persistent bases are the buffer ``bases`` [S, D, R], which moves towards the mean over the batch (and
    all processes) of the final bases at every forward pass in training mode. Raises ConfigError for persistent bases
    of unknown size.
    """

    bases: Tensor | None

    def __init__(self, config: HamburgerConfig, features: int | None) -> None:
        super().__init__()
        self.config = config
        self._fixed: dict[tuple[int, torch.device], Tensor] = {}
        self._factors = _factor_function(config)
        if config.bases == "random":
            self.bases = None
        elif features is None:
            raise ConfigError("bases: persistent in channel mode needs the number of positions (height x width)")
        else:
            self.register_buffer("bases", self._draw(config.heads, features, None, None))

    def draw_bases(
        self, batch: int, features: int, device: torch.device | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw initial bases [B*S, D, R]: U[0, 1) for NMF, N(0, 1) for VQ and CD; on the generator's device."""
        return self._draw(batch * self.config.heads, features, device, generator)

    def _draw(self, rows: int, features: int, device: torch.device | None, generator: torch.Generator | None) -> Tensor:
        draw = torch.rand if self.config.decomposition == "nmf" else torch.randn
        place = device if generator is None else generator.device
        bases = draw(rows, features, self.config.rank, generator=generator, device=place, dtype=torch.float32)
        if self.config.normalise_bases:
            bases = F.normalize(bases, dim=1)
        return bases.to(device)

    def _initial(self, batch: int, features: int, device: torch.device) -> Tensor:
        if self.bases is None and self.training:
            return self.draw_bases(batch, features, device)
        shared = self._fixed_draw(features, device) if self.bases is None else self.bases
        return shared.expand(batch, *shared.shape).flatten(0, 1)

    def _fixed_draw(self, features: int, device: torch.device) -> Tensor:
        key = (features, device)
        if key not in self._fixed:
            draw = self._seeded_draw
            if torch.compiler.is_compiling():
                draw = torch.compiler.disable(draw)  # not as a decorator: importing the compiler takes seconds
            self._fixed[key] = draw(features, device)
        return self._fixed[key]

    def _seeded_draw(self, features: int, device: torch.device) -> Tensor:
        # Drawn on the CPU, so that every device sees the same; a tensor made in inference mode could not be reused
        # by a later forward with gradient.
        with torch.inference_mode(False):
            generator = torch.Generator().manual_seed(EVALUATION_SEED)
            return self._draw(self.config.heads, features, device, generator)

    def forward(self, tokens: Tensor, bases: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return factors (coefficients [B*S, N, R], bases [B*S, D, R]) of tokens [B*S, N, D] (non-negative for NMF).

        ``bases`` [B*S, D, R] replaces the initial bases. The caller must have disabled autocast.
        """
        rows, _, features = tokens.shape
        if bases is None:
            bases = self._initial(rows // self.config.heads, features, tokens.device)
        config = self.config
        steps = config.steps if self.training or config.eval_steps is None else config.eval_steps
        temperature = config.temperature or (1.0 if config.decomposition == "nmf" else 100.0)
        coefficients, final = self._factors(tokens, bases.to(tokens.dtype), steps, config.gradient, temperature)
        if self.bases is not None and self.training:
            self.update_bases(final)
        return coefficients, final

    @torch.no_grad()
    def update_bases(self, final: Tensor) -> None:
        """Move the persistent bases towards the mean of ``final`` [B*S, D, R] over samples and processes."""
        if self.bases is None:
            raise ConfigError("bases: random keeps no bases to update; allowed with bases: persistent")
        mean = final.unflatten(0, (-1, self.config.heads)).mean(dim=0).to(self.bases.dtype)
        mean = mean_over_processes_(mean.contiguous())
        self.bases.copy_(F.normalize(torch.lerp(mean, self.bases, self.config.momentum), dim=1))


def _factor_function(config: HamburgerConfig) -> FactorFunction:
    if config.decomposition == "cd":
        return functools.partial(cd_factors, ridge=config.ridge)
    return vq_factors if config.decomposition == "vq" else nmf_factors


@contextlib.contextmanager
def measured_reconstruction(block: nn.Module) -> Iterator[list[Tensor]]:
    """Measure how well every `Ham` inside a block reconstructs during forward passes in this context.

    Yields a list, to which each decomposition appends (|x - reconstruction|^2, |x|^2) as a tensor [2] on the device,
    for `reconstruction_error`.
    """
    energies: list[Tensor] = []

    def record(_: nn.Module, inputs: tuple[Tensor, ...], factors: tuple[Tensor, Tensor]) -> None:
        energies.append(_error_energy(inputs[0], *factors))

    hooks = [ham.register_forward_hook(record) for ham in block.modules() if isinstance(ham, Ham)]
    try:
        yield energies
    finally:
        for hook in hooks:
            hook.remove()


def reconstruction_error(energies: list[Tensor]) -> Tensor:
    """Return |x - reconstruction| / |x| of the list of `measured_reconstruction`, a scalar on the device."""
    error, energy = torch.stack(energies).sum(dim=0).unbind()
    return (error / energy.clamp(min=torch.finfo(energy.dtype).tiny)).sqrt()


@torch.no_grad()
def _error_energy(tokens: Tensor, coefficients: Tensor, bases: Tensor) -> Tensor:
    """Return (|x - CB^T|^2, |x|^2) over the batch from R x R products, without making the reconstruction."""
    energy = tokens.square().sum()
    cross = (coefficients * (tokens @ bases)).sum()
    model = ((coefficients.mT @ coefficients) * (bases.mT @ bases)).sum()
    return torch.stack([(energy - 2 * cross + model).clamp(min=0), energy])
