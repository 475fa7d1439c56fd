r"""Newton's method for $g(z) = 0$ with a matrix that is factorised once, many small systems at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ude._checks import positive
from ude.ad import implicit
from ude.ad.recording import is_transformed


class Root(NamedTuple):
    """What the iteration came to.

    Args:
        z: The root, detached; NaN for a sample that did not converge.
        rate: By how much the last correction was smaller than the one before, shape `(batch,)`.
        residuals: How many residuals each sample needed, up to the iteration in which it came to its end, and that of
            `attach_root` where gradients are recorded; shape `(batch,)`.
    """

    z: Tensor
    rate: Tensor
    residuals: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Newton:
    r"""Simplified Newton iteration, $z \leftarrow z - M^{-1} g(z)$ with a fixed $M \approx \partial g / \partial z$.

    Converges linearly, every sample by itself: one that has converged stands still, so that the result does not depend
    on its neighbours. With the rate $\theta$ by which corrections shrink, the error left after a correction $\delta$
    is at most $\frac{\theta}{1 - \theta} \|\delta\|$; the iteration ends when this is at most `tolerance`. It gives up
    where corrections grow, or shrink too slowly to end within `max_iterations`, and stops with the last sample.

    Args:
        tolerance: Error of the root, in the units in which `size` measures: in a step of a solver, those of its
            tolerances.
        max_iterations: Most iterations; a sample that has not converged by then is NaN, so that its step shrinks.

    Raises:
        ValueError: If an option is not positive.

    Example:
        >>> newton = Newton(tolerance=1e-6)
        >>> z = newton.iterate(lambda z: z**2 - 2.0, lambda r: r / 2.8, torch.ones(1, 1), lambda d: d.abs().amax(-1)).z
        >>> z
        tensor([[1.4142]])

    Reference:
        Hairer & Wanner (1996), Solving Ordinary Differential Equations II, section IV.8.
    """

    tolerance: float = 0.01
    max_iterations: int = 10

    def __post_init__(self) -> None:
        for name in self.__slots__:
            positive(name, getattr(self, name))

    def iterate(
        self,
        residual: Callable[[Tensor], Tensor],
        solve: Callable[[Tensor], Tensor],
        z: Tensor,
        size: Callable[[Tensor], Tensor],
        rate: Tensor | None = None,
    ) -> Root:
        r"""Return the root near z.

        Args:
            residual: $z \mapsto g(z)$, of the shape of z.
            solve: $r \mapsto M^{-1} r$.
            z: First guess, shape `(batch, ...)`.
            size: Norm of a correction, shape `(batch,)`.
            rate: Rate $\theta$ seen with the same matrix just before, shape `(batch,)`: one iteration may then be
                enough. Infinite where there is none.

        Returns:
            The root, the rate, and what it cost.
        """
        recorded = int(torch.is_grad_enabled())
        with torch.no_grad():
            z = z.detach()
            infinite = torch.full_like(size(z), torch.inf)
            nowhere = torch.zeros_like(infinite, dtype=torch.bool)
            start = _Iteration(
                left=torch.full((), self.max_iterations - 1, device=z.device),
                z=z,
                rate=infinite if rate is None else rate.detach(),
                last=infinite.clone(),  # the compiler wants no two of these to share their memory
                converged=nowhere,
                failed=nowhere.clone(),
                residuals=torch.full_like(nowhere, recorded, dtype=torch.int64),
            )
            end = _repeat(lambda at: self._improve(at, residual, solve, size), start, self.max_iterations)
            return Root(torch.where(_like(end.converged, end.z), end.z, torch.nan), end.rate, end.residuals)

    def _improve(
        self,
        at: _Iteration,
        residual: Callable[[Tensor], Tensor],
        solve: Callable[[Tensor], Tensor],
        size: Callable[[Tensor], Tensor],
    ) -> _Iteration:
        """Return the next iterate, and what its correction tells about it."""
        correction = solve(residual(at.z))
        length = size(correction)
        active, first = ~(at.converged | at.failed), at.last.isinf()
        rate = torch.where(active & ~first, length / at.last, at.rate)
        ratio = rate / (1.0 - rate)
        # A rate seen elsewhere is trusted less (Hairer and Wanner, equation IV.8.10); without one, 0.9 is assumed.
        elsewhere = torch.where(rate < 1.0, ratio.clamp(min=torch.finfo(rate.dtype).eps) ** 0.8, 9.0)
        # NaN compares as false, and is no hope. A first correction of NaN is followed by another.
        hopeful = first | ((rate < 1.0) & (rate**at.left * length <= self.tolerance * (1.0 - rate)))
        close = torch.where(first, elsewhere, ratio) * length <= self.tolerance
        return _Iteration(
            left=at.left - 1,
            z=torch.where(_like(active, at.z), at.z - correction, at.z),
            rate=rate,
            last=length,
            converged=at.converged | (active & hopeful & close),
            failed=at.failed | (active & ~hopeful),
            residuals=at.residuals + active,
        )


class _Iteration(NamedTuple):
    """The state of the iteration.

    Args:
        left: Iterations left after this one, shape `()`.
        z: The iterate.
        rate: As in `Root`; the others have its shape.
        last: Size of the last correction, infinite before the first one.
        converged: The sample stands still at its root.
        failed: The sample stands still away from it.
        residuals: Those that each sample needed.
    """

    left: Tensor
    z: Tensor
    rate: Tensor
    last: Tensor
    converged: Tensor
    failed: Tensor
    residuals: Tensor


def _repeat(improve: Callable[[_Iteration], _Iteration], at: _Iteration, count: int) -> _Iteration:
    """Iterate until no sample moves, or `count` times."""
    if torch.compiler.is_compiling():

        def moves(*at: Tensor) -> Tensor:
            left, *_, converged, failed, _ = at
            return (left >= 0) & ~(converged | failed).all()

        return _Iteration(*torch.while_loop(moves, lambda *at: tuple(improve(_Iteration(*at))), tuple(at)))
    looks = not is_transformed()
    for _ in range(count):
        at = improve(at)
        if looks and bool((at.converged | at.failed).all()):
            break
    return at


def attach_root(
    z: Tensor, residual: Callable[[Tensor], Tensor], solve_transposed: Callable[[Tensor], Tensor]
) -> Tensor:
    r"""Return the root z of $g(z, p) = 0$ as a function of everything that g depends on.

    One evaluation of g, and none where no gradient is wanted.

    Args:
        z: The root, detached.
        residual: $z \mapsto g(z, p)$.
        solve_transposed: $w \mapsto (\partial g / \partial z)^{-T} w$ at the root itself.
    """
    if not torch.is_grad_enabled():
        return z
    recorded = residual(z)
    return implicit(z, recorded, solve_transposed) if recorded.requires_grad else z


def _like(mask: Tensor, z: Tensor) -> Tensor:
    return mask.reshape(-1, *[1] * (z.ndim - 1))
