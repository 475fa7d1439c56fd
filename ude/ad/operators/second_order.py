"""Operators with second derivatives: one collapsed pass along directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from ude.ad.algebra.cache import directions
from ude.ad.jet import Jet
from ude.ad.operators.estimators import Estimator, spread_of_mean
from ude.ad.operators.result import OperatorResult, as_jet, check_chunk_size, check_points

Field: TypeAlias = Callable[..., Tensor]
Coefficient: TypeAlias = "float | Tensor | Callable[..., Tensor]"
"""A number, a tensor, or a function called with the arguments of `f`."""


def laplacian(
    f: Field,
    x: Tensor,
    *,
    estimator: Estimator | None = None,
    standard_error: bool = False,
    chunk_size: int | None = None,
    check_rows: bool = False,
) -> OperatorResult:
    r"""Return $f$, its gradient and its Laplacian $\sum_i \partial_i^2 f$.

    One pass with D + 2 slots, or S + 2 with an estimator.

    Args:
        f: Function that acts on every row by itself, from `(*batch, D)` to `(*batch, *out)`.
        x: Points, shape `(*batch, D)`.
        estimator: Draws directions in place of all coordinates.
        standard_error: Estimate the standard error of an estimate too; costs S more slots.
        chunk_size: Most directions in one pass, to bound memory; all at once if None.
        check_rows: Verify that f acts row by row, by two more evaluations.

    Raises:
        TypeError: If x is no tensor of floats.
        ValueError: If x is not finite, shapes do not fit, or f mixes rows and that is checked.

    Example:
        >>> result = laplacian(lambda x: (x**3).sum(-1), torch.tensor([[1.0, 2.0]]))
        >>> result.operator, result.gradient
        (tensor([18.]), tensor([[ 3., 12.]]))

    Reference: R. Li et al., Forward Laplacian, 2023; F. Dangel et al., Collapsing Taylor mode automatic
    differentiation, 2025.
    """
    check_points(f, x, check_rows=check_rows)
    exact = estimator is None
    result = _Pass(f, (x,), _directions(None, x, estimator), None, chunk_size).run(
        spread_of_mean(estimator, x.shape[-1], standard_error=standard_error)
    )
    return _result(result, 2.0, directional=False, gradient=exact)


def weighted_laplacian(
    f: Field,
    x: Tensor,
    sigma: Coefficient,
    *,
    weights: Sequence[float] | None = None,
    estimator: Estimator | None = None,
    standard_error: bool = False,
    chunk_size: int | None = None,
    check_rows: bool = False,
) -> OperatorResult:
    r"""Return $f$, $\sigma^T \nabla f$ and the second derivatives along the columns of $\sigma$, weighted and summed.

    $$\operatorname{tr}(\sigma W \sigma^T \nabla^2 f), \qquad W = \operatorname{diag}(w)$$

    One pass with R + 2 slots. Weights of both signs share it: they enter the one slot of order two.

    Args:
        f: Function that acts on every row by itself, from `(*batch, D)` to `(*batch, *out)`.
        x: Points, shape `(*batch, D)`.
        sigma: Directions as columns, a number, a tensor of shape `(D, R)` or `(*batch, D, R)`, or a function of x.
        weights: R numbers $w_r$, of any sign; 1 if left out.
        estimator: Draws directions in the space of the R columns; only for weights 1.
        standard_error: Estimate the standard error of an estimate too; costs S more slots.
        chunk_size: Most directions in one pass, to bound memory; all at once if None.
        check_rows: Verify that f acts row by row, by two more evaluations.

    Raises:
        TypeError: If x is no tensor of floats.
        ValueError: If x is not finite or shapes do not fit.

    Example:
        >>> wave = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> f = lambda x: x[..., 0] ** 2 * x[..., 1] ** 2
        >>> weighted_laplacian(f, torch.ones(1, 2), wave, weights=[1, -1]).operator
        tensor([-6.])
    """
    check_points(f, x, check_rows=check_rows)
    columns = _matrix(sigma, (x,), "sigma")
    if isinstance(weights, Tensor) and weights.requires_grad:
        raise ValueError(
            "Expected weights without gradient, got a recorded tensor. Scale the columns of sigma instead."
        )
    if weights is not None and estimator is not None:
        raise ValueError(
            "Expected weights or an estimator, got both. Scale the columns of sigma instead, for weights >= 0."
        )
    rows = _directions(columns, x, estimator)
    spread = spread_of_mean(estimator, columns.shape[-1], standard_error=standard_error)
    result = _Pass(f, (x,), rows, None, chunk_size, weights).run(spread)
    return _result(result, 2.0, directional=estimator is None, gradient=False)


def generator(
    f: Field,
    x: Tensor,
    *,
    drift: Coefficient | None = None,
    diffusion: Coefficient | None = None,
    t: Tensor | float | None = None,
    estimator: Estimator | None = None,
    standard_error: bool = False,
    chunk_size: int | None = None,
    check_rows: bool = False,
) -> OperatorResult:
    r"""Return $u$, $\sigma^T \nabla u$ and the generator of a diffusion applied to u, with its time derivative.

    $$\partial_t u + \mu \cdot \nabla u + \frac{1}{2} \operatorname{tr}(\sigma \sigma^T \nabla^2 u)$$

    It belongs to $dX = \mu\,dt + \sigma\,dW$, and appears in the Kolmogorov and Hamilton-Jacobi-Bellman equations.
    One pass with R + 2 slots: drift and time enter through the input's slot of order two and cost nothing.

    Args:
        f: $u$, called as `f(x)`, or as `f(t, x)` if t is given; acts on every row by itself.
        x: Points, shape `(*batch, D)`.
        drift: $\mu$, a number, a tensor of shape `(D,)` or `(*batch, D)`, or a function with the arguments of f.
        diffusion: $\sigma$, a number (times the identity), a tensor `(D, R)` or `(*batch, D, R)`, or such a function.
        t: Time, a number or a tensor that broadcasts against `(*batch, 1)`; f gets it with that shape.
        estimator: Draws directions in the space of the noise.
        standard_error: Estimate the standard error of an estimate too; costs S more slots.
        chunk_size: Most directions in one pass, to bound memory; all at once if None.
        check_rows: Verify that f acts row by row, by two more evaluations.

    Raises:
        TypeError: If x is no tensor of floats.
        ValueError: If x is not finite or shapes do not fit.

    Example:
        >>> result = generator(lambda x: (x**2).sum(-1), torch.ones(1, 3), drift=-1.0, diffusion=0.5)
        >>> result.operator  # -2 |x|^2 + 3 * 0.25
        tensor([-5.2500])
    """
    primals = (x,) if t is None else (_time(t, x), x)
    check_points(lambda y: f(*primals[:-1], y), x, check_rows=check_rows)
    columns = _matrix(0.0 if diffusion is None else diffusion, primals, "diffusion")
    rows = _directions(columns, x, estimator)
    result = _Pass(f, primals, rows, _vector(drift, primals), chunk_size).run(
        spread_of_mean(estimator, columns.shape[-1], standard_error=standard_error)
    )
    return _result(result, 1.0, directional=estimator is None, gradient=False)


class _Pass:
    r"""Collapsed second-order passes along given directions.

    Args:
        f: The function.
        primals: Its arguments, (x,) or (t, x).
        directions: Shape `(R, *batch or 1s, D)`.
        drift: First-order part, broadcasts against x; None for none.
        chunk_size: Most directions in one pass.
        weights: Of the directions.
    """

    def __init__(
        self,
        f: Field,
        primals: tuple[Tensor, ...],
        directions: Tensor,
        drift: Tensor | None,
        chunk_size: int | None,
        weights: Sequence[float] | None = None,
    ) -> None:
        if weights is not None and len(weights) != len(directions):
            raise ValueError(f"Expected one weight for each of the {len(directions)} directions, got {len(weights)}.")
        self.f, self.primals, self.directions, self.drift = f, primals, directions, drift
        self.size = check_chunk_size(chunk_size) or len(directions)
        self.weights = None if weights is None else tuple(float(w) for w in weights)

    def run(self, spread: float | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return the value, the first derivatives `(R, ...)`, half the second-order sum, and its standard error.

        Args:
            spread: Standard deviation of the mean over that of independent directions; None for no standard error.
        """
        separate = spread is not None
        value: Tensor | None = None
        firsts, tops, singles = [], [], []
        for start in range(0, len(self.directions), self.size):
            jet = self._chunk(start, collapsed=not separate)
            value = jet.value
            slots = jet.dense()
            count = min(self.size, len(self.directions) - start)
            firsts.append(slots[:count])
            if separate:
                singles.append(slots[count:])
            else:
                tops.append(slots[count])
        assert value is not None  # there is at least one direction
        first = torch.cat(firsts) if len(firsts) > 1 else firsts[0]
        if spread is None:
            return value, first, sum(tops[1:], tops[0]), None
        return value, first, *self._statistics(torch.cat(singles), spread)

    def _statistics(self, singles: Tensor, spread: float) -> tuple[Tensor, Tensor]:
        samples = len(singles)
        # Each direction carries 1 / samples of the trace; the drift is in all of them and does not scatter.
        error = (singles * samples).std(0) * (spread / samples**0.5)
        return singles.sum(0), error

    def _chunk(self, start: int, *, collapsed: bool) -> Jet:
        part = self.directions[start : start + self.size]
        weights = None if self.weights is None else self.weights[start : start + self.size]
        algebra = directions(len(part), 2, weights, collapsed=collapsed)
        *time, x = self.primals
        first_pass = start == 0
        seeds = _seeds(part, self._top(part, collapsed) if first_pass or not collapsed else None, collapsed)
        arguments = [Jet(algebra, t, self._time_seed(len(part), t, collapsed, first_pass)) for t in time]
        return as_jet(self.f(*arguments, Jet(algebra, x, seeds)), algebra, x)

    def _top(self, part: Tensor, collapsed: bool) -> Tensor | None:
        if self.drift is None:
            return None
        # Where directions stay apart, each takes an equal part.
        return self.drift if collapsed else self.drift / len(self.directions)

    def _time_seed(self, count: int, t: Tensor, collapsed: bool, first_pass: bool) -> Tensor | None:
        if collapsed and not first_pass:
            return None
        zeros = t.new_zeros((count, *(1,) * t.ndim))
        top = t.new_ones((1, *(1,) * t.ndim)) if collapsed else t.new_full(zeros.shape, 1.0 / len(self.directions))
        return torch.cat([zeros, top])


def _seeds(directions: Tensor, top: Tensor | None, collapsed: bool) -> Tensor:
    if top is None:
        return directions
    shape = torch.broadcast_shapes(directions.shape[1:], top.shape)
    tops = 1 if collapsed else len(directions)
    return torch.cat([directions.expand(-1, *shape), top.expand(tops, *shape)])


def _result(
    parts: tuple[Tensor, Tensor, Tensor, Tensor | None], scale: float, *, directional: bool, gradient: bool
) -> OperatorResult:
    value, first, top, error = parts
    first = first.movedim(0, -1)
    return OperatorResult(
        value=value,
        operator=top if scale == 1.0 else top * scale,
        gradient=first if gradient else None,
        directional=first if directional else None,
        standard_error=None if error is None else error * scale,
    )


def _directions(columns: Tensor | None, x: Tensor, estimator: Estimator | None) -> Tensor:
    r"""Return directions $v_r$, `(R, *batch or 1s, D)`, such that the operator is $\sum_r v_r v_r^T : \nabla^2$."""
    ones = (1,) * (x.ndim - 1)
    if columns is None:
        if estimator is None:
            return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device).reshape(-1, *ones, x.shape[-1])
        return _drawn(estimator, x.shape[-1], x)
    if columns.ndim == 2:
        columns = columns.reshape(*ones, *columns.shape)
    if estimator is None:
        return columns.movedim(-1, 0)
    probes = _drawn(estimator, columns.shape[-1], x)
    return (columns @ probes.unsqueeze(-1)).squeeze(-1)


def _drawn(estimator: Estimator, dimension: int, x: Tensor) -> Tensor:
    batch = tuple(x.shape[:-1]) if estimator.per_sample else (1,) * (x.ndim - 1)
    return estimator.draw(dimension, batch, x) / estimator.samples**0.5


def _matrix(sigma: Coefficient, primals: tuple[Tensor, ...], name: str) -> Tensor:
    x = primals[-1]
    given = sigma(*primals) if callable(sigma) else sigma
    if not isinstance(given, Tensor) or given.ndim == 0:
        return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) * given
    if (
        given.ndim < 2
        or 0 in given.shape[-1:]
        or given.shape[-2] != x.shape[-1]
        or (given.ndim > 2 and given.shape[:-2] != x.shape[:-1])
    ):
        raise ValueError(
            f"Expected {name} of shape ({x.shape[-1]}, R) or {(*x.shape, 'R')} for x of shape {tuple(x.shape)}, "
            f"got {tuple(given.shape)}."
        )
    return given.to(x.dtype)


def _vector(drift: Coefficient | None, primals: tuple[Tensor, ...]) -> Tensor | None:
    if drift is None:
        return None
    x = primals[-1]
    given = torch.as_tensor(drift(*primals) if callable(drift) else drift, dtype=x.dtype, device=x.device)
    if given.ndim and given.shape not in {x.shape[-1:], x.shape}:
        raise ValueError(f"Expected a drift of shape {tuple(x.shape)} or ({x.shape[-1]},), got {tuple(given.shape)}.")
    return (
        given.expand(x.shape) if given.ndim == x.ndim else given.expand(x.shape[-1:]).reshape(*(1,) * (x.ndim - 1), -1)
    )


def _time(t: Tensor | float, x: Tensor) -> Tensor:
    given = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    shape = (*x.shape[:-1], 1)
    try:
        return given.expand(shape)
    except RuntimeError:
        raise ValueError(f"Expected t to broadcast against {shape}, got shape {tuple(given.shape)}.") from None
