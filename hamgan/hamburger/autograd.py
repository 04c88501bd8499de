"""Differentiate linear parts of the block by hand, which saves memory and passes over feature maps.

The backward passes use differentiable operations if a graph of the gradient is needed (R1 penalty).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _LinearCoefficients(torch.autograd.Function):
    """Attach the gradient of ``scale * (tokens @ bases)`` to coefficients that have already been computed."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, coefficients: Tensor, bases: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(bases, scale)
        ctx.rows_first = tokens.stride(-1) == 1
        return coefficients.view_as(coefficients)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        bases, scale = ctx.saved_tensors
        grad = grad * scale
        # In the memory order of the tokens, so that the previous layer reads it without a copy.
        product = grad @ bases.mT if ctx.rows_first else (bases @ grad.mT).mT
        return product, None, None, None


def linear_coefficients(tokens: Tensor, coefficients: Tensor, bases: Tensor, scale: Tensor) -> Tensor:
    """Return ``coefficients`` [B, N, R], equal to ``scale * (tokens @ bases)``, with the gradient of that product.

    Shapes: tokens [B, N, D], bases [B, D, R], scale [B, N, R].
    """
    result: Tensor = _LinearCoefficients.apply(tokens, coefficients, bases, scale)
    return result


class _KeepGradient(torch.autograd.Function):
    """Return x unchanged; its gradient passes only where ``keep`` is true."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor) -> Tensor:
        ctx.save_for_backward(keep)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return grad * keep, None
        return grad.mul_(keep), None


def rectify_(x: Tensor) -> Tensor:
    """Apply ReLU in place, keeping one byte per element for backward; the gradient passes where x is exactly zero.

    Use it only for a new x that nothing else saved or viewed and whose gradient comes from one matrix product: the
    backward pass writes into that gradient.
    """
    data = x.detach()
    keep = data >= 0 if torch.is_grad_enabled() and x.requires_grad else None
    data.relu_()
    if keep is None:
        return data
    result: Tensor = _KeepGradient.apply(x, keep)
    return result


class _Fork(torch.autograd.Function):
    """Return rows x [M, C] and ``x @ weight.T``, and add both gradients of x inside one matrix product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight)
        ctx.set_materialize_grads(False)
        return x.view_as(x), F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        if grad is None:
            return grad_x, None
        grad_weight = grad.mT @ x if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight
        return grad @ weight if grad_x is None else torch.addmm(grad_x, grad, weight), grad_weight


def fork(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return (x, x @ weight.T) of rows x [M, C], weight [D, C].

    Use the returned x: its two gradients are then added inside a matrix product, without a pass over x.
    """
    same, product = _Fork.apply(x, weight)
    return same, product
