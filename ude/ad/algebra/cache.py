"""Algebras that operators need, made once; the compiler calls this rather than look into exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from numbers import Rational
from typing import TypeAlias

import torch

from ude.ad.algebra.base import Algebra
from ude.ad.algebra.directions import Directions
from ude.ad.algebra.polynomial import MultiIndex
from ude.ad.algebra.symbol import Symbol
from ude.ad.algebra.univariate import Univariate
from ude.ad.recording import constant_result

Terms: TypeAlias = tuple[tuple[MultiIndex, "float | Rational"], ...]
"""An operator as pairs of multi-index and coefficient."""

Reading: TypeAlias = tuple[float, tuple[tuple[int, float], ...]]
"""An operator by the slots: the factor of the value, and pairs of slot number, from 1, and factor."""


def univariate(order: int) -> Univariate:
    """Return the algebra of power series to this order."""
    if torch.compiler.is_compiling():
        return getattr(_STORE, _univariate_name(order))
    return _univariate(order)


def directions(
    count: int, order: int, weights: tuple[float, ...] | None = None, *, collapsed: bool = True
) -> Directions:
    """Return the algebra of these directions."""
    if torch.compiler.is_compiling():
        return getattr(_STORE, _directions_name(count, order, weights, collapsed))
    return _directions(count, order, weights, collapsed=collapsed)


def symbol(operators: tuple[Terms, ...]) -> Symbol:
    """Return the minimal algebra of these operators."""
    if torch.compiler.is_compiling():
        return getattr(_STORE, _symbol_name(operators))
    return _symbol(operators)


@constant_result
def reading(operators: tuple[Terms, ...], terms: Terms) -> Reading:
    """Express an operator by the slots of the algebra of some operators; ValueError if they do not carry it."""
    return _reading(operators, terms)


@constant_result
def coordinate_slot(operators: tuple[Terms, ...], dimension: int) -> int | None:
    """Return the slot of the first coordinate's derivative if those of all coordinates follow one another."""
    return _coordinate_slot(operators, dimension)


@constant_result
def squared_laplacian(dimension: int) -> Terms:
    """Return the symbol of the biharmonic operator."""
    return _squared_laplacian(dimension)


def subset_of_squared_laplacian(dimension: int, chosen: tuple[int, ...]) -> Terms:
    """Return the biharmonic of a random subset of coordinates, weighted by one over the chance of each pair."""
    count = len(chosen)
    if count < min(2, dimension):
        raise ValueError(f"Expected at least 2 coordinates, for mixed derivatives, got {count}.")
    terms = []
    for place, i in enumerate(chosen):
        for j in chosen[place:]:
            single, pair = (
                Fraction(dimension, count),
                Fraction(dimension * (dimension - 1), max(1, count * (count - 1))),
            )
            terms.append((_fourth(i, j, dimension), single if i == j else 2 * pair))
    return tuple(terms)


class _Store:
    """Algebras by name, as attributes: what compiled code refers to."""


_STORE = _Store()
_NAMES: dict[Algebra, str] = {}
_univariate = lru_cache(maxsize=64)(Univariate)
_directions = lru_cache(maxsize=64)(Directions)


@lru_cache(maxsize=64)
def _symbol(operators: tuple[Terms, ...]) -> Symbol:
    return Symbol(*(dict(terms) for terms in operators))


@lru_cache(maxsize=256)
def _reading(operators: tuple[Terms, ...], terms: Terms) -> Reading:
    factor, slots = _symbol(operators).coordinates(dict(terms))
    return float(factor), tuple((number, float(scale)) for number, scale in slots)


@lru_cache(maxsize=256)
def _coordinate_slot(operators: tuple[Terms, ...], dimension: int) -> int | None:
    algebra = _symbol(operators)
    numbers = []
    for i in range(dimension):
        try:
            _, slots = algebra.coordinates({tuple(int(j == i) for j in range(dimension)): 1})
        except ValueError:
            return None
        numbers.append(slots)
    first = numbers[0][0][0]
    return first if numbers == [((first + i, 1),) for i in range(dimension)] else None


@lru_cache(maxsize=64)
def _squared_laplacian(dimension: int) -> Terms:
    pairs = [(i, j) for i in range(dimension) for j in range(i, dimension)]
    return tuple((_fourth(i, j, dimension), 1 if i == j else 2) for i, j in pairs)


def _fourth(i: int, j: int, dimension: int) -> MultiIndex:
    return tuple(2 * (int(k == i) + int(k == j)) for k in range(dimension))


@constant_result
def _univariate_name(order: int) -> str:
    return _stored(_univariate(order))


@constant_result
def _directions_name(count: int, order: int, weights: tuple[float, ...] | None, collapsed: bool) -> str:
    return _stored(_directions(count, order, weights, collapsed=collapsed))


@constant_result
def _symbol_name(operators: tuple[Terms, ...]) -> str:
    return _stored(_symbol(operators))


def _stored(algebra: Algebra) -> str:
    """Return the name of an algebra in the store, where it is put if it is new."""
    name = _NAMES.setdefault(algebra, f"algebra_{len(_NAMES)}")
    if not hasattr(_STORE, name):
        setattr(_STORE, name, algebra)
    return name
