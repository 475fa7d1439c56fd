"""Exact polynomials in several variables: symbols of differential operators and the spaces they span."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import product
from numbers import Rational
from typing import TypeAlias

Monomial: TypeAlias = tuple[int, ...]
r"""Sorted variable numbers: $\xi_0^2 \xi_3$ is `(0, 0, 3)`, 1 is `()`."""

Polynomial: TypeAlias = dict[Monomial, Fraction]
"""Coefficients that are not zero."""

MultiIndex: TypeAlias = tuple[int, ...]
r"""Exponents: $\xi_0^2 \xi_3$ in four variables is `(2, 0, 0, 1)`."""


def from_multi_indices(terms: Mapping[MultiIndex, float | Rational]) -> Polynomial:
    """Return the polynomial with these coefficients; a float is the binary fraction that it stands for."""
    result: Polynomial = {}
    for exponents, coefficient in terms.items():
        if isinstance(coefficient, float) and not math.isfinite(coefficient):
            raise ValueError(f"Expected finite coefficients, got {coefficient} for {exponents}.")
        exact = Fraction(coefficient)
        if exact:
            result[tuple(i for i, power in enumerate(exponents) for _ in range(power))] = exact
    return result


def derivative(p: Polynomial, variable: int) -> Polynomial:
    r"""Return $\partial p / \partial \xi_i$."""
    result: Polynomial = {}
    for monomial, coefficient in p.items():
        power = monomial.count(variable)
        if power:
            place = monomial.index(variable)
            result[monomial[:place] + monomial[place + 1 :]] = power * coefficient
    return result


def derivatives(p: Polynomial) -> Iterator[Polynomial]:
    """Yield the derivatives that do not vanish."""
    for variable in sorted({i for monomial in p for i in monomial}):
        yield derivative(p, variable)


def splits(monomial: Monomial) -> Iterator[tuple[Monomial, Monomial, int]]:
    r"""Yield $(\alpha, \gamma, \binom{\beta}{\alpha})$ for $\alpha + \gamma = \beta$, terms of $(\xi + \eta)^\beta$."""
    powers = sorted(Counter(monomial).items())
    for taken in product(*(range(power + 1) for _, power in powers)):
        left = tuple(i for (i, _), count in zip(powers, taken, strict=True) for _ in range(count))
        right = tuple(i for (i, power), count in zip(powers, taken, strict=True) for _ in range(power - count))
        ways = math.prod(math.comb(power, count) for (_, power), count in zip(powers, taken, strict=True))
        yield left, right, ways


def rank_of(monomial: Monomial) -> tuple[int, tuple[int, ...]]:
    """Order monomials by degree, and within a degree by variable numbers, low numbers leading."""
    return len(monomial), tuple(-i for i in monomial)


def leading(p: Polynomial) -> Monomial:
    """Return the monomial that comes last in the order of `rank_of`."""
    return max(p, key=rank_of)


class Span:
    """A space of polynomials as its reduced echelon basis, in exact arithmetic.

    Each row has its leading monomial, the pivot, with coefficient 1, and no other row contains that monomial. The
    coordinates of a polynomial in this basis are therefore its coefficients at the pivots.
    """

    def __init__(self) -> None:
        self.rows: dict[Monomial, Polynomial] = {}

    def add(self, p: Polynomial) -> bool:
        """Add a polynomial; return whether the space grew."""
        rest = self._reduced(p)
        if not rest:
            return False
        pivot = leading(rest)
        scale = rest[pivot]
        row = {monomial: coefficient / scale for monomial, coefficient in rest.items()}
        for other in self.rows.values():
            if pivot in other:
                _subtract(other, other[pivot], row)
        self.rows[pivot] = row
        return True

    def contains(self, p: Polynomial) -> bool:
        """Whether a polynomial lies in the space."""
        return not self._reduced(p)

    def _reduced(self, p: Polynomial) -> Polynomial:
        """Return what is left of a polynomial when its coordinates times the rows are taken away."""
        rest = {monomial: Fraction(coefficient) for monomial, coefficient in p.items() if coefficient}
        for pivot in [monomial for monomial in rest if monomial in self.rows]:
            _subtract(rest, rest[pivot], self.rows[pivot])
        return rest

    def coordinates(self, p: Polynomial) -> dict[Monomial, Fraction]:
        """Return the coordinates of a member of this space, by pivot."""
        return {monomial: coefficient for monomial, coefficient in p.items() if monomial in self.rows}


def closure(polynomials: Sequence[Polynomial]) -> Span:
    """Return the span of polynomials and all their partial derivatives."""
    span = Span()
    waiting = list(polynomials)
    while waiting:
        p = waiting.pop()
        if span.add(p):
            waiting.extend(derivatives(p))
    return span


def text(p: Polynomial, names: Sequence[str] | None = None) -> str:
    r"""Return a polynomial in derivatives as text, such as `d0^2 + 2 d0 d1`."""
    if not p:
        return "0"
    terms = []
    for monomial in sorted(p, key=rank_of, reverse=True):
        powers = Counter(monomial)
        factors = [
            (names[i] if names else f"d{i}") + (f"^{power}" if power > 1 else "") for i, power in sorted(powers.items())
        ]
        coefficient = p[monomial]
        scale = [] if abs(coefficient) == 1 and factors else [_number(abs(coefficient))]
        terms.append(("-" if coefficient < 0 else "+", " ".join(scale + factors)))
    first_sign, first = terms[0]
    return ("-" if first_sign == "-" else "") + first + "".join(f" {sign} {term}" for sign, term in terms[1:])


def _number(value: Fraction) -> str:
    return str(value) if value.denominator < 10_000 else f"{float(value):g}"


def _subtract(target: Polynomial, factor: Fraction, row: Polynomial) -> None:
    """Subtract `factor` times `row` from `target`, in place."""
    for monomial, coefficient in row.items():
        rest = target.get(monomial, Fraction(0)) - factor * coefficient
        if rest:
            target[monomial] = rest
        else:
            target.pop(monomial, None)
