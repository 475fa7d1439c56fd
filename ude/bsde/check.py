"""The self-check: does a known solution satisfy the equation as it was written down?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ude.ad import Estimator, operators, vjp
from ude.bsde.equation import SemilinearPDE, as_column

Solution: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A function u(t, x) of columns of times and rows of points."""

_STEPS = 20
"""Steps on the way to a point; where exactly it lies does not matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionCheck:
    r"""How well a function satisfies an equation.

    Args:
        residual: $\partial_t u + \mu \cdot \nabla u + \frac12 \operatorname{tr}(\sigma \sigma^T \nabla^2 u) + f$, shape
            `(points,)`.
        terms: Root mean square of each of these four terms over the points, by name.
        standard_error: Of the residual at every point, where an estimator took the place of the trace; else None.
        terminal: $u(T, x) - g(x)$ at every point, shape `(points,)`.
        terminal_scale: Root mean square of g.
        tolerance: Relative size up to which a residual counts as rounding.
    """

    residual: Tensor
    terms: Mapping[str, float]
    standard_error: Tensor | None
    terminal: Tensor
    terminal_scale: float
    tolerance: float

    @property
    def relative_residual(self) -> float:
        """Root mean square of the residual over the sum of those of its terms."""
        return _ratio(_rms(self.residual), sum(self.terms.values()))

    @property
    def noise(self) -> float:
        """What an estimator alone contributes to `relative_residual`; 0 without one."""
        return 0.0 if self.standard_error is None else _ratio(_rms(self.standard_error), sum(self.terms.values()))

    @property
    def relative_terminal(self) -> float:
        """Root mean square of the error in the terminal value over that of g."""
        return _ratio(_rms(self.terminal), self.terminal_scale)

    @property
    def is_solution(self) -> bool:
        """Whether equation and terminal value hold up to the tolerance and three times the noise of an estimator."""
        return self.relative_residual <= self.tolerance + 3 * self.noise and self.relative_terminal <= self.tolerance

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {size:.3g}" for name, size in self.terms.items())
        noise = f" (estimator alone: {self.noise:.1e})" if self.standard_error is not None else ""
        verdict = "solves the equation" if self.is_solution else "does NOT solve the equation"
        return (
            f"{verdict}: relative residual {self.relative_residual:.1e}{noise}, relative error of the terminal value "
            f"{self.relative_terminal:.1e}; {len(self.residual)} points; terms: {sizes}"
        )


def check_solution(
    pde: SemilinearPDE,
    u: Solution,
    x0: Tensor,
    *,
    t0: float = 0.0,
    points: int = 64,
    estimator: Estimator | None = None,
    tolerance: float | None = None,
    generator: torch.Generator | None = None,
) -> SolutionCheck:
    r"""Evaluate the residual of an equation for a function u(t, x) that should solve it.

    A wrong sign or factor in `f` moves a solution by percents, which training alone does not show. Points are those
    that matter for $u(t_0, x_0)$: random times, and the forward process $dX = \mu\,dt + \sigma\,dW$ there.

    Args:
        pde: The equation.
        u: The function, `u(t, x)` with t of shape `(points, 1)` and x of shape `(points, d)`; it acts on every point by
            itself and returns `(points, 1)` or `(points,)`.
        x0: Start of the forward process, shape `(d,)`; its dtype is that of the computation.
        t0: Time of the start.
        points: Number of points.
        estimator: Estimates the trace from a few directions, for many dimensions; the residual is then compared with
            its standard error.
        tolerance: Relative size that counts as rounding; the square root of the machine epsilon if left out.
        generator: Source of the points; torch's default one if left out.

    Raises:
        ValueError: If something does not fit `x0`.

    Example:
        >>> heat = SemilinearPDE(
        ...     drift=0.0, diffusion=1.0, f=lambda t, x, u, p: torch.zeros_like(u), g=lambda x: (x**2).sum(-1), t1=1.0
        ... )
        >>> origin = torch.zeros(3, dtype=torch.float64)
        >>> check_solution(heat, lambda t, x: (x**2).sum(-1, keepdim=True) + 3 * (1 - t), origin).is_solution
        True
        >>> check_solution(heat, lambda t, x: (x**2).sum(-1, keepdim=True) + 2 * (1 - t), origin).is_solution
        False
    """
    pde.check(x0, t0)
    if points < 1:
        raise ValueError(f"`points` must be at least 1, got {points}.")
    with torch.no_grad():
        fraction = torch.rand(points, 1, dtype=x0.dtype, device=x0.device, generator=generator)
        t = t0 + (pde.t1 - t0) * fraction
        terms, error = residual_terms(pde, u, t, _forward(pde, x0, t0, t, generator), estimator=estimator)
        end = torch.full_like(t, pde.t1)
        last = _forward(pde, x0, t0, end, generator)
        goal = pde.terminal(last)
        return SolutionCheck(
            residual=sum(terms.values(), torch.zeros_like(t)).squeeze(-1),
            terms={name: _rms(term) for name, term in terms.items()},
            standard_error=None if error is None else error.squeeze(-1),
            terminal=(as_column("u", u(end, last), last) - goal).squeeze(-1),
            terminal_scale=_rms(goal),
            tolerance=torch.finfo(x0.dtype).eps ** 0.5 if tolerance is None else tolerance,
        )


def residual_terms(
    pde: SemilinearPDE, u: Solution, t: Tensor, x: Tensor, *, estimator: Estimator | None = None
) -> tuple[dict[str, Tensor], Tensor | None]:
    r"""Return the four terms of the equation at given points, which add up to its residual.

    Time derivative, drift and trace are one pass of the kernel, `ude.ad.generator`, with d + 2 slots; the gradient is
    one reverse product.

    Args:
        pde: The equation.
        u: The function.
        t: Times, shape `(points, 1)`.
        x: Points, shape `(points, d)`.
        estimator: Estimates the trace from a few directions.

    Returns:
        `u_t`, `drift` ($\mu \cdot \nabla u$), `trace` and `f`, each of shape `(points, 1)`, and the standard error of
        the trace, None without an estimator.
    """

    def column(t: Tensor, x: Tensor) -> Tensor:
        return as_column("u", u(t, x), x)

    value, pullback = vjp(column, t, x)
    u_t, gradient = pullback(torch.ones_like(value))
    drift = pde.drift_at(t, x)
    found = operators.generator(
        column,
        x,
        t=t,
        drift=drift,
        diffusion=pde.diffusion_at(t, x).matrix(x.shape[-1]),
        estimator=estimator,
        standard_error=estimator is not None,
    )
    assert isinstance(found.operator, Tensor)  # one operator was asked for
    transport = (drift * gradient).sum(-1, keepdim=True)
    trace = found.operator - u_t - transport
    terms = {"u_t": u_t, "drift": transport, "trace": trace, "f": pde.driver(t, x, value, gradient)}
    return terms, found.standard_error


def _forward(pde: SemilinearPDE, x0: Tensor, t0: float, t1: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return the forward process at times of its own for every point, shape `(points, d)`."""
    x, step = x0.expand(len(t1), -1), (t1 - t0) / _STEPS
    for n in range(_STEPS):
        t = t0 + n * step
        sigma = pde.diffusion_at(t, x)
        noise = torch.randn((len(x), sigma.noise_size(len(x0))), dtype=x.dtype, device=x.device, generator=generator)
        x = x + step * pde.drift_at(t, x) + sigma.spread(step.sqrt() * noise)
    return x


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _ratio(size: float, scale: float) -> float:
    # A function whose terms all vanish solves the equation exactly; one that differs from a vanishing g does not.
    return size / scale if scale else (0.0 if size == 0.0 else float("inf"))
