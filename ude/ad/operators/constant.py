"""Operators of any order: one pass in the minimal algebra of their symbols."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from ude.ad.algebra.cache import (
    Terms,
    coordinate_slot,
    directions,
    reading,
    squared_laplacian,
    subset_of_squared_laplacian,
    symbol,
)
from ude.ad.algebra.polynomial import MultiIndex
from ude.ad.jet import Jet
from ude.ad.operators.estimators import Coordinates, Estimator, Gaussian, spread_of_mean
from ude.ad.operators.result import OperatorResult, as_jet, check_chunk_size, check_points

Field: TypeAlias = Callable[[Tensor], Tensor]
Operator: TypeAlias = Mapping[MultiIndex, Any]
"""Coefficients by multi-index: numbers, tensors of shape `(*batch,)`, or functions of x that return such."""


def linear_operator(
    f: Field,
    x: Tensor,
    operators: Operator | Sequence[Operator],
    *,
    chunk_size: int | None = None,
    check_rows: bool = False,
) -> OperatorResult:
    r"""Return $f$ and $L f = \sum_\alpha c_\alpha(x)\, \partial^\alpha f$ for one or several operators together.

    One pass with as many slots as the symbols and all their derivatives span; see `Symbol`. Numbers stay exact; each
    term whose coefficient varies in space is carried by itself and multiplied afterwards.

    Args:
        f: Function that acts on every row by itself, from `(*batch, D)` to `(*batch, *out)`.
        x: Points, shape `(*batch, D)`.
        operators: `{multi_index: coefficient}`, or several of them, which share slots. $\partial_x \partial_y^2$ in
            three dimensions is `(1, 2, 0)`. A coefficient is a number, a tensor of shape `(*batch,)`, or a function of
            x that returns one.
        chunk_size: Most slots in one pass: the operator is split into several passes. All at once if None.
        check_rows: Verify that f acts row by row, by two more evaluations.

    Returns:
        The value, `operator` (a tuple if several were given), and the gradient if all of it is carried.

    Raises:
        TypeError: If x is no tensor of floats.
        ValueError: If x is not finite, or a multi-index does not have D entries.

    Example:
        >>> wave = {(2, 0): 1, (0, 2): -1}
        >>> linear_operator(lambda x: x[..., 0] ** 3 * x[..., 1] ** 2, torch.ones(1, 2), wave).operator
        tensor([4.])
    """
    check_points(f, x, check_rows=check_rows)
    check_chunk_size(chunk_size)
    several = not isinstance(operators, Mapping)
    given = [cast(Operator, operators)] if not several else list(cast("Sequence[Operator]", operators))
    for operator in given:
        for index in operator:
            if len(index) != x.shape[-1]:
                raise ValueError(
                    f"Expected multi-indices with {x.shape[-1]} entries, one per dimension of x, got {index}."
                )
    pieces = [piece for number, operator in enumerate(given) for piece in _pieces(operator, number, x)]
    value, results, gradient = _evaluate(f, x, pieces, len(given), chunk_size)
    return OperatorResult(value=value, operator=results if several else results[0], gradient=gradient)


def biharmonic(
    f: Field,
    x: Tensor,
    *,
    estimator: Estimator | None = None,
    standard_error: bool = False,
    chunk_size: int | None = None,
    check_rows: bool = False,
) -> OperatorResult:
    r"""Return $f$, its gradient and $\Delta^2 f = \sum_{ij} \partial_i^2 \partial_j^2 f$.

    $D^2/2 + 5D/2 + 2$ slots. Estimators: `Gaussian`, $\frac{1}{3S} \sum_s \partial_{v_s}^4 f$ with 3S + 2 slots, or
    `Coordinates`, all pairs of a random subset of at least 2 coordinates, weighted so that the mean is right.

    Args:
        f: Function that acts on every row by itself, from `(*batch, D)` to `(*batch, *out)`.
        x: Points, shape `(*batch, D)`.
        estimator: `Gaussian` or `Coordinates`.
        standard_error: Estimate the standard error of a Gaussian estimate too; costs S more slots.
        chunk_size: Most slots in one pass, to bound memory; all at once if None.
        check_rows: Verify that f acts row by row, by two more evaluations.

    Raises:
        TypeError: If x is no tensor of floats.
        ValueError: If x is not finite, or the estimator is biased for this operator.

    Example:
        >>> biharmonic(lambda x: (x**2).sum(-1) ** 2, torch.ones(1, 3)).operator
        tensor([120.])

    Reference: Z. Hu, Z. Shi, G. Karniadakis, K. Kawaguchi, Hutchinson trace estimation for high-dimensional and
    high-order physics-informed neural networks, 2024 (the Gaussian estimator).
    """
    check_points(f, x, check_rows=check_rows)
    check_chunk_size(chunk_size)
    spread_of_mean(estimator, x.shape[-1], standard_error=standard_error)
    if isinstance(estimator, Gaussian):
        return _gaussian_biharmonic(f, x, estimator, standard_error, chunk_size)
    if estimator is None:
        terms = squared_laplacian(x.shape[-1])
    elif isinstance(estimator, Coordinates):
        if estimator.per_sample or standard_error:
            raise ValueError("Expected shared coordinates without standard error here. Use `Gaussian` for these.")
        chosen = estimator.subset(x.shape[-1], torch.device("cpu"))
        terms = subset_of_squared_laplacian(x.shape[-1], tuple(sorted(chosen.tolist())))
    else:
        raise ValueError(
            f"Expected `Gaussian` or `Coordinates` for an operator of order four, got {type(estimator).__name__}: the "
            "fourth moments of its directions are not those that make the mean of fourth derivatives the biharmonic, "
            "so that the estimate would be biased."
        )
    value, results, gradient = _evaluate(f, x, [_Piece(terms, 0)], 1, chunk_size)
    return OperatorResult(value=value, operator=results[0], gradient=gradient if estimator is None else None)


class _Piece(NamedTuple):
    """An operator with constant coefficients, which result it belongs to, and what it is multiplied by."""

    terms: Terms
    number: int
    factor: Tensor | None = None


def _pieces(operator: Operator, number: int, x: Tensor) -> list[_Piece]:
    """Split an operator into its constant part and one piece for each coefficient that varies."""
    constant, pieces = [], []
    for index, coefficient in operator.items():
        value = coefficient(x) if callable(coefficient) else coefficient
        if isinstance(value, Tensor):
            pieces.append(_Piece(((index, 1),), number, _over_batch(value, index, x)))
        elif value != 0:
            constant.append((index, value))
    return ([_Piece(tuple(constant), number)] if constant else []) + pieces


def _over_batch(coefficient: Tensor, index: MultiIndex, x: Tensor) -> Tensor:
    """Return a coefficient with the shape of the batch; raise if it has another one."""
    batch = x.shape[:-1]
    if coefficient.shape == (*batch, 1):
        coefficient = coefficient.squeeze(-1)
    if coefficient.numel() == 1:
        return coefficient.reshape(()).expand(batch)
    if coefficient.shape != batch:
        raise ValueError(
            f"Expected a coefficient of shape {tuple(batch)} for {index}, one number for each point, got "
            f"{tuple(coefficient.shape)}."
        )
    return coefficient


def _evaluate(f: Field, x: Tensor, pieces: Sequence[_Piece], count: int, chunk_size: int | None) -> _Evaluation:
    """Evaluate all pieces, in one pass or several."""
    totals: list[Tensor | None] = [None] * count
    value, gradient = None, None
    for group in _groups(pieces, chunk_size):
        operators = tuple(piece.terms for piece in group)
        result = _propagate(f, x, operators)
        value = result.value if value is None else value
        gradient = _gradient(result, operators, x.shape[-1]) if gradient is None else gradient
        for piece in group:
            term, total = _read(result, operators, piece), totals[piece.number]
            totals[piece.number] = term if total is None else total + term
    known = f(x) if value is None else value
    return _Evaluation(known, tuple(torch.zeros_like(known) if total is None else total for total in totals), gradient)


class _Evaluation(NamedTuple):
    value: Tensor
    operators: tuple[Tensor, ...]
    gradient: Tensor | None


def _propagate(f: Field, x: Tensor, operators: tuple[Terms, ...]) -> Jet:
    if not _has_derivatives(operators):
        return Jet(directions(1, 1), f(x))
    algebra = symbol(operators)
    seeds = algebra.seeds(x).reshape(-1, *(1,) * (x.ndim - 1), x.shape[-1])
    return as_jet(f(Jet(algebra, x, seeds)), algebra, x)  # pyright: ignore[reportArgumentType]


def _has_derivatives(operators: tuple[Terms, ...]) -> bool:
    return any(any(index) for terms in operators for index, _ in terms)


def _read(result: Jet, operators: tuple[Terms, ...], piece: _Piece) -> Tensor:
    """Return the piece's operator from the slots."""
    if _has_derivatives(operators):
        factor, slots = reading(operators, piece.terms)
        total = result.value * factor if factor else None
        for number, scale in slots:
            slot = result.slot(number)
            term = slot if scale == 1.0 else slot * scale
            total = term if total is None else total + term
        assert total is not None  # an operator has at least one term
    else:
        total = result.value * float(sum(Fraction(c) for _, c in piece.terms))
    if piece.factor is None:
        return total
    return total * piece.factor.reshape(*piece.factor.shape, *(1,) * (total.ndim - piece.factor.ndim))


def _gradient(result: Jet, operators: tuple[Terms, ...], dimension: int) -> Tensor | None:
    """Return the gradient if the slots carry all of it."""
    first = coordinate_slot(operators, dimension) if _has_derivatives(operators) else None
    if first is None:
        return None
    return result.dense()[first - 1 : first - 1 + dimension].movedim(0, -1)


def _groups(pieces: Sequence[_Piece], chunk_size: int | None) -> list[list[_Piece]]:
    """Split pieces into groups whose algebra has at most `chunk_size` slots, term by term."""
    if chunk_size is None:
        return [list(pieces)] if pieces else []
    groups: list[list[_Piece]] = []
    for piece in pieces:
        current: Terms = ()
        for term in piece.terms:
            wider = (*current, term)
            if current and _has_derivatives((wider,)) and symbol((wider,)).dim > chunk_size:
                groups.append([_Piece(current, piece.number, piece.factor)])
                wider = (term,)
            current = wider
        groups.append([_Piece(current, piece.number, piece.factor)])
    return groups


def _gaussian_biharmonic(
    f: Field, x: Tensor, estimator: Gaussian, standard_error: bool, chunk_size: int | None
) -> OperatorResult:
    """Return the mean of fourth directional derivatives over three, from collapsed Taylor mode."""
    batch = tuple(x.shape[:-1]) if estimator.per_sample else (1,) * (x.ndim - 1)
    probes = estimator.draw(x.shape[-1], batch, x)
    per_pass = len(probes) if chunk_size is None else max(1, (chunk_size - 2) // 3)
    value, sums = x, []
    for part in probes.split(per_pass):
        algebra = directions(len(part), 4, collapsed=not standard_error)
        result = as_jet(f(Jet(algebra, x, part)), algebra, x)  # pyright: ignore[reportArgumentType]
        value = result.value
        sums.append(result.dense()[3 * len(part) :] * 8.0)  # 4! / 3
    fourth = torch.cat(sums)
    error = fourth.std(0) / len(fourth) ** 0.5 if standard_error else None
    return OperatorResult(value=value, operator=fourth.sum(0) / len(probes), standard_error=error)
