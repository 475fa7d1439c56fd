"""Derivatives of what an equation defines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ude.ad.once import once

REASON = (
    "The solution of an implicit equation can be differentiated once, got a second derivative. Use a direct linear "
    "solver (`LU()`) or an explicit method where you need one."
)


def implicit(z: Tensor, residual: Tensor, solve_transposed: Callable[[Tensor], Tensor]) -> Tensor:
    r"""Return the solution z of $g(z, p) = 0$ as a function of everything that g depends on.

    By the implicit function theorem $dz/dp = -(\partial g / \partial z)^{-1}\, \partial g / \partial p$: the cotangent
    $\bar z$ of the solution becomes the cotangent $-(\partial g/\partial z)^{-T} \bar z$ of the residual, which the
    recorded residual sends on to p. How z was found does not matter. Reverse mode, once: a second derivative raises.

    Args:
        z: The solution, detached.
        residual: $g(z, p)$ with z held constant, recorded by autograd. Its value is not used.
        solve_transposed: $w \mapsto (\partial g / \partial z)^{-T} w$.

    Returns:
        The values of z.

    Raises:
        ValueError: If z is not detached: its own derivative would be added to this one.

    Example:
        >>> p = torch.tensor(9.0, requires_grad=True)
        >>> z = torch.tensor(3.0)
        >>> root = implicit(z, z**2 - p, lambda w: w / (2 * z))
        >>> torch.autograd.grad(root, p)
        (tensor(0.1667),)
    """
    if z.requires_grad:
        raise ValueError("Expected `z` detached from the graph, got one that requires a gradient. Pass `z.detach()`.")
    # The compiler allows no second derivative anyway, and cannot trace the guard against one.
    kind = _Implicit if torch.compiler.is_compiling() else _GuardedImplicit
    return kind.apply(z, residual, solve_transposed)


class _Implicit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, residual: Tensor, solve_transposed: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve_transposed = solve_transposed
        return z.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, -ctx.solve_transposed(cotangent), None


class _GuardedImplicit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, residual: Tensor, solve_transposed: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve_transposed = solve_transposed
        ctx.save_for_backward(residual)
        return z.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        with torch.no_grad():
            result = -ctx.solve_transposed(cotangent)
        if torch.is_grad_enabled():
            # PyTorch's `once_differentiable` raises for the cotangent only and drops what comes through the residual.
            result = once(REASON, result, cotangent, *ctx.saved_tensors)
        return None, result, None
