"""The equation: a semilinear parabolic partial differential equation with a terminal value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Coefficient: TypeAlias = "float | Tensor | Callable[[Tensor, Tensor], Tensor]"
"""A number, a tensor, or a function of (t, x)."""


@dataclass(frozen=True, slots=True)
class Diffusion:
    r"""The matrix $\sigma$ at certain points, stored as what it is.

    Args:
        values: One number, diagonals `(d,)` or `(*batch, d)`, or matrices `(d, noise)` or `(*batch, d, noise)`.
        is_diagonal: Whether the values are a number or diagonals.
    """

    values: Tensor
    is_diagonal: bool

    def noise_size(self, dimension: int) -> int:
        """Return the number of independent noises of a process in so many dimensions."""
        return dimension if self.is_diagonal else self.values.shape[-1]

    def spread(self, noise: Tensor) -> Tensor:
        r"""Return $\sigma \xi$, shape `(*batch, d)`, for $\xi$ of shape `(*batch, noise)`."""
        return self.values * noise if self.is_diagonal else (self.values @ noise.unsqueeze(-1)).squeeze(-1)

    def gather(self, gradient: Tensor) -> Tensor:
        r"""Return $\sigma^T v$, shape `(*batch, noise)`, for $v$ of shape `(*batch, d)`."""
        return self.values * gradient if self.is_diagonal else (self.values.mT @ gradient.unsqueeze(-1)).squeeze(-1)

    def matrix(self, dimension: int) -> Tensor:
        """Return the matrices, shape `(d, noise)` or `(*batch, d, noise)`."""
        if not self.is_diagonal:
            return self.values
        return torch.diag_embed(self.values if self.values.ndim else self.values.expand(dimension))


@dataclass(frozen=True, slots=True, kw_only=True)
class SemilinearPDE:
    r"""A semilinear parabolic equation on $[t_0, T] \times \mathbb{R}^d$, solved backwards from its terminal value.

    $$\partial_t u + \mu(t, x) \cdot \nabla u + \tfrac12 \operatorname{tr}(\sigma \sigma^T(t, x) \nabla^2 u)
    + f(t, x, u, \nabla u) = 0, \qquad u(T, x) = g(x)$$

    Along $dX = \mu\,dt + \sigma\,dW$ the solution is that of a backward stochastic differential equation,
    $dY = -f(t, X, Y, \nabla u)\,dt + \nabla u \cdot \sigma\,dW$ with $Y_T = g(X_T)$ and $Y_t = u(t, X_t)$.

    Functions act on every point of a batch by itself: x has shape `(*batch, d)`, and so has `grad_u`; t and u are
    columns of shape `(*batch, 1)`, so that they multiply points as they stand, and sums over coordinates read
    `(grad_u**2).sum(-1, keepdim=True)`. `f` takes the gradient itself, not $\sigma^T \nabla u$: write it as it is
    printed.

    Args:
        drift: $\mu$, a number (of every coordinate), a tensor of shape `(d,)`, or a function of (t, x) that returns
            `(*batch, d)`.
        diffusion: $\sigma$, a number (times the identity), a diagonal of shape `(d,)`, a matrix `(d, noise)`, or a
            function of (t, x) that returns diagonals `(*batch, d)` or matrices `(*batch, d, noise)`.
        f: `f(t, x, u, grad_u)`, returns one number per point, `(*batch, 1)` or `(*batch,)`.
        g: `g(x)`, likewise.
        t1: $T$, in the time unit of the coefficients.

    Raises:
        ValueError: If a coefficient is not finite or has another number of axes.
        TypeError: If `f` or `g` cannot be called.

    Example:
        >>> pde = SemilinearPDE(
        ...     drift=0.0,
        ...     diffusion=2**0.5,
        ...     f=lambda t, x, u, grad_u: -(grad_u**2).sum(-1, keepdim=True),
        ...     g=lambda x: torch.log(0.5 + 0.5 * (x**2).sum(-1, keepdim=True)),
        ...     t1=1.0,
        ... )
        >>> pde.terminal(torch.ones(2, 3))
        tensor([[0.6931],
                [0.6931]])

    Reference: E. Pardoux and S. Peng, Backward stochastic differential equations and quasilinear parabolic partial
    differential equations, 1992.
    """

    drift: Coefficient
    diffusion: Coefficient
    f: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    g: Callable[[Tensor], Tensor]
    t1: float

    def __post_init__(self) -> None:
        _check_coefficient("drift", self.drift, "a number or a tensor of shape (d,)", most_axes=1)
        _check_coefficient(
            "diffusion",
            self.diffusion,
            "a number, a diagonal of shape (d,) or a matrix of shape (d, noise)",
            most_axes=2,
        )
        for name, function in (("f", self.f), ("g", self.g)):
            if not callable(function):
                raise TypeError(f"`{name}` must be a function, got {type(function).__name__}. For none, return zeros.")
        if not math.isfinite(self.t1):
            raise ValueError(f"`t1` must be a finite time, got {self.t1}.")

    def drift_at(self, t: Tensor, x: Tensor) -> Tensor:
        r"""Return $\mu(t, x)$, shape `(*batch, d)`."""
        given = _evaluated(self.drift, t, x)
        if given.ndim and given.shape not in (x.shape[-1:], x.shape):
            raise ValueError(
                f"`drift` must have shape ({x.shape[-1]},) or {tuple(x.shape)} at x of shape {tuple(x.shape)}, got "
                f"{tuple(given.shape)}."
            )
        return given.expand(x.shape)

    def diffusion_at(self, t: Tensor, x: Tensor) -> Diffusion:
        r"""Return $\sigma(t, x)$."""
        given = _evaluated(self.diffusion, t, x)
        d = x.shape[-1]
        if callable(self.diffusion):
            if given.shape == x.shape or given.shape[:-1] == x.shape:
                return Diffusion(given, is_diagonal=given.shape == x.shape)
            shapes = f"{tuple(x.shape)} (diagonals) or ({', '.join(map(str, x.shape))}, noise) (matrices)"
        else:
            if given.ndim == 0 or given.shape[0] == d:
                return Diffusion(given, is_diagonal=given.ndim < 2)
            shapes = f"({d},) (a diagonal) or ({d}, noise) (a matrix)"
        raise ValueError(
            f"`diffusion` must have shape {shapes} at x of shape {tuple(x.shape)}, got {tuple(given.shape)}."
        )

    def driver(self, t: Tensor, x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
        r"""Return $f(t, x, u, \nabla u)$, shape `(*batch, 1)`."""
        return as_column("f", self.f(t, x, u, grad_u), x)

    def terminal(self, x: Tensor) -> Tensor:
        r"""Return $g(x)$, shape `(*batch, 1)`."""
        return as_column("g", self.g(x), x)

    def check(self, x0: Tensor, t0: float) -> None:
        """Evaluate every coefficient next to a point, and raise unless all of them fit.

        Args:
            x0: The point, shape `(d,)`.
            t0: The time.

        Raises:
            ValueError: If x0 is no finite point of floats, t0 not before `t1`, or a shape does not fit.
        """
        if not x0.is_floating_point() or x0.ndim != 1 or not len(x0) or not bool(x0.isfinite().all()):
            raise ValueError(
                f"`x0` must be one finite point of floats, shape (d,), got {x0.dtype} of shape {tuple(x0.shape)}. "
                "For several points, ask for one after the other."
            )
        if not math.isfinite(t0) or t0 >= self.t1:
            raise ValueError(f"`t0` must lie before `t1` = {self.t1}, got {t0}.")
        # Another number of points than of coordinates: shapes that only fit by accident do not pass.
        rows = 2 if len(x0) != 2 else 3
        x = x0.expand(rows, -1)
        t, u = x.new_full((rows, 1), t0), self.terminal(x)
        self.drift_at(t, x)
        self.diffusion_at(t, x)
        self.driver(t, x, u, torch.zeros_like(x))


def as_column(name: str, value: Tensor, x: Tensor) -> Tensor:
    """Return one number per point of x as a column, or raise if there are others."""
    batch = tuple(x.shape[:-1])
    if tuple(value.shape) == (*batch, 1):
        return value
    if tuple(value.shape) == batch:
        return value.unsqueeze(-1)
    raise ValueError(
        f"`{name}` must return one number per point, shape {(*batch, 1)} for x of shape {tuple(x.shape)}, got "
        f"{tuple(value.shape)}. Sum over coordinates with `.sum(-1, keepdim=True)`."
    )


def _evaluated(value: Coefficient, t: Tensor, x: Tensor) -> Tensor:
    """Return a coefficient at points as a tensor; jets of the kernel stay what they are."""
    given = value(t, x) if callable(value) else value
    if callable(value) and not isinstance(given, int | float):
        return given
    return torch.as_tensor(given, dtype=x.dtype, device=x.device)


def _check_coefficient(name: str, value: Coefficient, expected: str, *, most_axes: int) -> None:
    if callable(value):
        return
    given = torch.as_tensor(value)
    if given.ndim > most_axes or not bool(given.isfinite().all()):
        raise ValueError(
            f"`{name}` must be {expected}, finite, or a function of (t, x), got {type(value).__name__} of shape "
            f"{tuple(given.shape)}{'' if bool(given.isfinite().all()) else ' with infinite or NaN entries'}."
        )
