"""Operators with first derivatives only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ude.ad.algebra.cache import directions as algebra_of
from ude.ad.jet import Jet
from ude.ad.operators.estimators import Estimator, spread_of_mean
from ude.ad.operators.result import OperatorResult, as_jet, check_chunk_size, check_points


def divergence(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    estimator: Estimator | None = None,
    standard_error: bool = False,
    chunk_size: int | None = None,
    check_rows: bool = False,
) -> OperatorResult:
    r"""Return a vector field and its divergence $\sum_i \partial_i f_i$, the trace of the Jacobian.

    D + 1 slots, or S + 1 with an estimator. It does not collapse: every direction is projected on its own output.

    Args:
        f: Vector field that acts on every row by itself, from `(*batch, D)` to `(*batch, D)`.
        x: Points, shape `(*batch, D)`.
        estimator: Draws directions v; the divergence is the mean of $v^T J v$.
        standard_error: Estimate the standard error of an estimate too.
        chunk_size: Most directions in one pass, to bound memory; all at once if None.
        check_rows: Verify that f acts row by row, by two more evaluations.

    Returns:
        The value `(*batch, D)`, the divergence `(*batch,)` and, if exact, the Jacobian `(*batch, D, D)` as gradient.

    Raises:
        TypeError: If x is no tensor of floats.
        ValueError: If x is not finite or f(x) has another shape.

    Example:
        >>> divergence(lambda x: x**2, torch.tensor([[1.0, 2.0]])).operator
        tensor([6.])
    """
    check_points(f, x, check_rows=check_rows)
    spread = spread_of_mean(estimator, x.shape[-1], standard_error=standard_error)
    dimension, ones = x.shape[-1], (1,) * (x.ndim - 1)
    if estimator is None:
        directions = torch.eye(dimension, dtype=x.dtype, device=x.device).reshape(-1, *ones, dimension)
    else:
        directions = estimator.draw(dimension, tuple(x.shape[:-1]) if estimator.per_sample else ones, x)
    size = check_chunk_size(chunk_size) or len(directions)
    value, parts = x, []
    for part in directions.split(size):
        algebra = algebra_of(len(part), 1, collapsed=False)
        result = as_jet(f(Jet(algebra, x, part)), algebra, x)  # pyright: ignore[reportArgumentType]
        if result.shape != x.shape:
            raise ValueError(
                f"Expected a vector field, with values of shape {tuple(x.shape)}, got {tuple(result.shape)}."
            )
        value = result.value
        parts.append(result.dense())
    products = torch.cat(parts)
    single = (products * directions).sum(-1)
    if estimator is None:
        return OperatorResult(value=value, operator=single.sum(0), gradient=products.movedim(0, -1))
    error = None if spread is None else single.std(0) * (spread / len(single) ** 0.5)
    return OperatorResult(value=value, operator=single.mean(0), standard_error=error)
