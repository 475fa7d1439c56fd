"""Newton's method within a step, with what it cost every sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ude.ad.recording import is_transformed
from ude.nonlinear import Newton
from ude.nonlinear.newton import _Iteration


class Iterated(NamedTuple):
    """What the iteration came to; see `Root`.

    Args:
        z: The root, detached; NaN for a sample that did not converge.
        rate: By how much the last correction was smaller than the one before, shape `(batch,)`.
        residuals: How many residuals each sample needed, the one on the autograd graph included; shape `(batch,)`.
    """

    z: Tensor
    rate: Tensor
    residuals: Tensor


def iterate(
    newton: Newton,
    residual: Callable[[Tensor], Tensor],
    solve: Callable[[Tensor], Tensor],
    z: Tensor,
    size: Callable[[Tensor], Tensor],
    rate: Tensor | None = None,
) -> Iterated:
    """Do as `Newton.iterate` does, and count the iterations up to that in which each sample came to its end.

    Where gradients are recorded, `attach_root` takes one residual more.
    """
    recorded = int(torch.is_grad_enabled())
    with torch.no_grad():
        z = z.detach()
        infinite = torch.full_like(size(z), torch.inf)
        nowhere = torch.zeros_like(infinite, dtype=torch.bool)
        start = _Iteration(
            left=torch.full((), newton.max_iterations - 1, device=z.device),
            z=z,
            rate=infinite if rate is None else rate.detach(),
            last=infinite.clone(),  # the compiler wants no two of these to share their memory
            converged=nowhere,
            failed=nowhere.clone(),
        )
        first = torch.full_like(nowhere, recorded, dtype=torch.int64)
        count, end = _repeat(lambda at: newton._improve(at, residual, solve, size), start, first, newton.max_iterations)
        root = torch.where(end.converged.reshape(-1, *[1] * (z.ndim - 1)), end.z, torch.nan)
        return Iterated(root, end.rate, count)


def _repeat(
    improve: Callable[[_Iteration], _Iteration], at: _Iteration, count: Tensor, most: int
) -> tuple[Tensor, _Iteration]:
    """Iterate until no sample moves, or `most` times."""
    if torch.compiler.is_compiling():

        def moves(count: Tensor, *at: Tensor) -> Tensor:
            left, *_, converged, failed = at
            return (left >= 0) & ~(converged | failed).all()

        def improved(count: Tensor, *at: Tensor) -> tuple[Tensor, ...]:
            *_, converged, failed = at
            return (count + ~(converged | failed), *improve(_Iteration(*at)))

        count, *end = torch.while_loop(moves, improved, (count, *at))
        return count, _Iteration(*end)
    looks, active = not is_transformed(), ~at.converged
    for _ in range(most):
        at, count = improve(at), count + active
        active = ~(at.converged | at.failed)
        if looks and not bool(active.any()):
            break
    return count, at
