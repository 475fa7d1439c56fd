"""The smallest algebra that carries a linear differential operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from numbers import Rational
from typing import TypeAlias

import torch
from torch import Tensor

from ude.ad.algebra.base import Algebra, StructureConstant
from ude.ad.algebra.polynomial import (
    Monomial,
    MultiIndex,
    Span,
    closure,
    from_multi_indices,
    splits,
    text,
)

Operator: TypeAlias = Mapping[MultiIndex, "float | Rational"]
"""Coefficients by multi-index: the operator $\\partial_x^2 + 2 \\partial_x \\partial_y$ is `{(2, 0): 1, (1, 1): 2}`."""


class Symbol(Algebra):
    r"""The minimal algebra of linear differential operators with constant coefficients.

    Let $p_1, p_2, \dots$ be the symbols of the operators and $S$ the span of these polynomials and of all their partial
    derivatives. The numbers $\{(q(\partial) f)(x) : q \in S\}$ propagate exactly through any composition, because
    $S$ is closed under the coproduct $q_c(\xi + \eta) = \sum_{ab} C_{cab}\, q_a(\xi)\, q_b(\eta)$; their number,
    $\dim S$, is the smallest of all quotient algebras of truncated polynomials that carry the operators. All
    arithmetic is rational: a float coefficient is the binary fraction that it stands for, and no rank is decided by a
    tolerance.

    Args:
        operators: One or several `{multi_index: coefficient}`; they share the slots.

    Raises:
        ValueError: If there is no operator, or the multi-indices are not tuples of one length of integers >= 0.

    Example:
        >>> Symbol({(2, 0): 1, (0, 2): 1})
        Symbol(d0^2 + d1^2): order 2, 4 slots (1 + 2 + 1)
        >>> Symbol({(4, 0): 1, (2, 2): 2, (0, 4): 1}).labels
        ('1', 'd0', 'd1', 'd0^2', 'd0 d1', 'd1^2', 'd0^3 + d0 d1^2', 'd0^2 d1 + d1^3', 'd0^4 + 2 d0^2 d1^2 + d1^4')

    Reference: the dual of the quotient by an annihilator ideal (F. S. Macaulay's inverse system, 1916), used as a
    Weil algebra (I. Kolar, P. Michor, J. Slovak, Natural Operations in Differential Geometry, 1993, section 35).
    """

    def __init__(self, *operators: Operator) -> None:
        self.operators = tuple(from_multi_indices(_checked(operator)) for operator in operators)
        self.variables = _variables(operators)
        span = closure([p for p in self.operators if p])
        pivots = sorted((pivot for pivot in span.rows if pivot), key=lambda m: (len(m), m))
        self._numbers: dict[Monomial, int] = {pivot: number for number, pivot in enumerate(pivots, 1)}
        self._span = span
        order = len(pivots[-1]) if pivots else 0
        if order == 0:
            raise ValueError("Expected at least one operator with a derivative, got none of order 1 or more.")
        sizes = [sum(len(pivot) == degree for pivot in pivots) for degree in range(1, order + 1)]
        labels = ["1", *(text(span.rows[pivot]) for pivot in pivots)]
        super().__init__(order, sizes, labels, list(_structure(span, self._numbers)))
        self._seeds = self._linear_parts()

    def __repr__(self) -> str:
        names = ", ".join(text(p) for p in self.operators)
        return f"Symbol({_short(names)}): {self._summary()}"

    def _key(self) -> object:
        return tuple(frozenset(p.items()) for p in self.operators), self.variables

    def coordinates(self, operator: Operator) -> tuple[Fraction, tuple[tuple[int, Fraction], ...]]:
        """Express an operator by the slots.

        Args:
            operator: A linear combination of the operators and their derivatives.

        Returns:
            The factor of the value, and pairs of slot number (from 1) and factor.

        Raises:
            ValueError: If the slots do not carry this operator.
        """
        p = from_multi_indices(_checked(operator))
        if not self._span.contains(p):
            raise ValueError(
                f"Expected a combination of the slots of {self!r}, got {text(p)}. "
                "Give this operator to `Symbol` together with the others."
            )
        coordinates = self._span.coordinates(p)
        slots = tuple((self._numbers[pivot], factor) for pivot, factor in coordinates.items() if pivot)
        return coordinates.get((), Fraction(0)), slots

    def seeds(self, like: Tensor) -> Tensor:
        r"""Return the slots of the coordinates: the linear part of each slot's polynomial.

        Args:
            like: Gives dtype and device.

        Returns:
            Tensor of shape `(slots, variables)`, cut after the last degree that is not zero.
        """
        return torch.tensor(self._seeds, dtype=like.dtype, device=like.device)

    def _linear_parts(self) -> list[list[float]]:
        """Return the linear part of each slot's polynomial, up to the last degree that has any."""
        parts = [[float(self._span.rows[pivot].get((i,), 0)) for i in range(self.variables)] for pivot in self._numbers]
        top = max(degree for degree, part in zip(self.degrees[1:], parts, strict=True) if any(part))
        return parts[: sum(self.sizes[:top])]


def _structure(span: Span, numbers: Mapping[Monomial, int]) -> Iterator[StructureConstant]:
    """Yield the structure constants: the coefficients of the coproduct of each row at pairs of pivots."""
    for pivot, number in numbers.items():
        for monomial, factor in span.rows[pivot].items():
            for left, right, ways in splits(monomial):
                if left in numbers and right in numbers:
                    yield StructureConstant(number, numbers[left], numbers[right], factor * ways)


def _checked(operator: Operator) -> Operator:
    for index in operator:
        if not isinstance(index, tuple) or not all(isinstance(i, int) and i >= 0 for i in index):
            raise ValueError(
                "Expected multi-indices, tuples of integers >= 0 such as (2, 0) for the second derivative by the first "
                f"of two variables, got {index!r}."
            )
    return operator


def _variables(operators: Sequence[Operator]) -> int:
    lengths = {len(index) for operator in operators for index in operator}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"Expected multi-indices of one length, the number of variables, got lengths {sorted(lengths)}. "
            "Write a zero for every variable that is not differentiated."
        )
    return lengths.pop()


def _short(names: str) -> str:
    return names if len(names) <= 60 else names[:57] + "..."
