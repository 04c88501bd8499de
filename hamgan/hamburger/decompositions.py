"""Decompose by NMF, VQ and CD, as plain functions: K steps that find the factors, then one that carries the gradient.

There are two layouts. The public functions take ``x`` [B, D, N] as in the paper. The ``*_factors`` functions take
tokens [B, N, D], a view of a channels-last feature map, and return the factors (coefficients [B, N, R], bases [B, D,
R]) of the reconstruction ``coefficients @ bases.mT``, so that a following linear map can be applied to the small factor
instead of the product.

Under autocast the state stays in float32: with bfloat16 state the reconstruction is off by 2.6e-2.
"""

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from hamgan.hamburger.autograd import linear_coefficients
from hamgan.hamburger.precision import without_autocast

Gradient = Literal["one_step", "unrolled"]

EPS = 1e-6
# The floor of F.normalize: columns of x far below EPS keep their direction.
TOKEN_EPS = 1e-12


class FactorFunction(Protocol):
    """Decompose tokens [B, N, D] from initial bases [B, D, R] into (coefficients [B, N, R], bases [B, D, R])."""

    def __call__(
        self, tokens: Tensor, bases: Tensor, steps: int, gradient: Gradient, temperature: float
    ) -> tuple[Tensor, Tensor]: ...


def nmf(x: Tensor, bases: Tensor, steps: int = 6, gradient: Gradient = "one_step", temperature: float = 1.0) -> Tensor:
    """Reconstruct ``relu(x)`` by non-negative matrix factorisation (multiplicative updates, Lee & Seung 2001).

    Shapes: x [B, D, N], bases [B, D, R] (non-negative) -> [B, D, N]. ``steps`` joint updates of coefficients and bases,
    then one more of the coefficients. ``one_step`` differentiates only that last one (HamGAN, section 3.3),
    ``unrolled`` all of them (Light-Ham). ``temperature`` scales the softmax that gives the first coefficients. The
    gradient also passes where x is exactly zero.
    """
    return _reconstruct(nmf_factors, x.masked_fill(x < 0, 0), bases, steps, gradient, temperature)


def vq(x: Tensor, bases: Tensor, steps: int = 6, gradient: Gradient = "one_step", temperature: float = 100.0) -> Tensor:
    """Reconstruct x by soft vector quantisation (k-means with softmax assignment by cosine; HamGAN, section 3.2).

    Shapes: x [B, D, N], bases [B, D, R] -> [B, D, N]. ``steps`` updates, then one differentiable assignment;
    ``temperature`` multiplies the cosines. With ``one_step`` the norms of the columns of x are constants as well.
    """
    return _reconstruct(vq_factors, x, bases, steps, gradient, temperature)


def cd(
    x: Tensor,
    bases: Tensor,
    steps: int = 6,
    gradient: Gradient = "one_step",
    temperature: float = 100.0,
    ridge: float = 0.01,
) -> Tensor:
    """Reconstruct x by concept decomposition (spherical k-means, then ridge regression; Dhillon & Modha 2001).

    Shapes: x [B, D, N], bases [B, D, R] -> [B, D, N]. ``temperature`` multiplies the cosines of the assignment.
    With ``one_step`` the output is linear in x. ``ridge`` is the regression's penalty: 0.01 in the official HamGAN,
    0.1 in the official PyTorch code.
    """

    def factors(
        tokens: Tensor, bases: Tensor, steps: int, gradient: Gradient, temperature: float
    ) -> tuple[Tensor, Tensor]:
        return cd_factors(tokens, bases, steps, gradient, temperature, ridge)

    return _reconstruct(factors, x, bases, steps, gradient, temperature)


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type that a decomposition of ``dtype`` computes in: float32 for half precision, else the same."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _reconstruct(
    factors: FactorFunction, x: Tensor, bases: Tensor, steps: int, gradient: Gradient, temperature: float
) -> Tensor:
    dtype = state_dtype(x.dtype)
    with without_autocast(x.device):
        coefficients, bases = factors(x.to(dtype).mT, bases.to(dtype), steps, gradient, temperature)
        return (bases @ coefficients.mT).to(x.dtype)


def nmf_step(tokens: Tensor, bases: Tensor, coefficients: Tensor, projection: Tensor) -> tuple[Tensor, Tensor]:
    """Make one multiplicative update of ``tokens ≈ coefficients @ bases.mT``; returns (bases, coefficients).

    Shapes: tokens [B, N, D] and bases [B, D, R] non-negative, coefficients [B, N, R]; ``projection`` is
    ``tokens @ bases``, which the caller has already. The coefficients are updated first, then the bases with the new
    coefficients. The R x R Gram matrices are computed first, so that nothing costs more than N D R.
    """
    coefficients = coefficients * projection / (coefficients @ (bases.mT @ bases) + EPS)
    gram = coefficients.mT @ coefficients
    return bases * (tokens.mT @ coefficients) / (bases @ gram + EPS), coefficients


def nmf_factors(
    tokens: Tensor, bases: Tensor, steps: int, gradient: Gradient = "one_step", temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return factors of non-negative tokens [B, N, D] by NMF; see ``nmf``.

    With ``one_step`` bases and scale are constants, so the coefficients are linear in the tokens.
    """
    with torch.set_grad_enabled(gradient == "unrolled" and torch.is_grad_enabled()):
        projection = tokens @ bases
        coefficients = F.softmax(temperature * projection, dim=-1)
        for _ in range(steps):
            bases, coefficients = nmf_step(tokens, bases, coefficients, projection)
            projection = tokens @ bases
        denominator = coefficients @ (bases.mT @ bases) + EPS
        if gradient == "unrolled":
            return coefficients * projection / denominator, bases
        scale = coefficients / denominator
        coefficients = scale * projection
    if torch.is_grad_enabled() and tokens.requires_grad:
        coefficients = linear_coefficients(tokens, coefficients, bases, scale)
    return coefficients, bases


def _assign(tokens: Tensor, norms: Tensor, bases: Tensor, temperature: float) -> Tensor:
    """Return the soft assignment [B, N, R] of tokens to bases by cosine."""
    # Dividing the product by the norms saves a normalised copy of the tokens.
    return F.softmax(temperature * (tokens @ bases) / norms, dim=-1)


def _means(tokens: Tensor, assignment: Tensor) -> Tensor:
    """Return weighted means [B, D, R] of the tokens."""
    return tokens.mT @ (assignment / (EPS + assignment.sum(dim=1, keepdim=True)))


def vq_factors(
    tokens: Tensor, bases: Tensor, steps: int, gradient: Gradient = "one_step", temperature: float = 100.0
) -> tuple[Tensor, Tensor]:
    """Return factors of tokens [B, N, D] by soft vector quantisation; see ``vq``."""
    with torch.set_grad_enabled(gradient == "unrolled" and torch.is_grad_enabled()):
        norms = tokens.norm(dim=-1, keepdim=True)
        floored = norms.clamp(min=TOKEN_EPS)
        for _ in range(steps):
            assignment = _assign(tokens, floored, F.normalize(bases, dim=1, eps=EPS), temperature)
            bases = _means(tokens, assignment)
        normalised = F.normalize(bases, dim=1, eps=EPS)
    return _assign(tokens, norms + EPS, normalised, temperature), bases


def cd_factors(
    tokens: Tensor,
    bases: Tensor,
    steps: int,
    gradient: Gradient = "one_step",
    temperature: float = 100.0,
    ridge: float = 0.01,
) -> tuple[Tensor, Tensor]:
    """Return factors of tokens [B, N, D] by concept decomposition; see ``cd``."""
    with torch.set_grad_enabled(gradient == "unrolled" and torch.is_grad_enabled()):
        norms = tokens.norm(dim=-1, keepdim=True).clamp(min=TOKEN_EPS)
        bases = F.normalize(bases, dim=1, eps=EPS)
        for _ in range(steps):
            bases = F.normalize(_means(tokens, _assign(tokens, norms, bases, temperature)), dim=1, eps=EPS)
        identity = torch.eye(bases.shape[-1], dtype=bases.dtype, device=bases.device)
        # Cholesky, as the matrix is positive definite; the _ex form does not wait for the device to look for errors.
        root, _ = torch.linalg.cholesky_ex(bases.mT @ bases + ridge * identity)
        regression = torch.cholesky_solve(bases.mT, root).mT
    return tokens @ regression, bases
