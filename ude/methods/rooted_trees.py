"""Rooted trees, which index the order conditions of Runge-Kutta methods."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import combinations_with_replacement, groupby
from math import prod
from typing import TypeAlias

Tree: TypeAlias = tuple["Tree", ...]
"""A rooted tree is the sorted tuple of the subtrees hanging from its root; `()` is the single vertex."""


@cache
def trees(order: int) -> tuple[Tree, ...]:
    r"""Return all rooted trees with `order` vertices.

    Their number is 1, 1, 2, 4, 9, 20, 48, 115 for 1 to 8 vertices.

    Args:
        order: Number of vertices, at least 1.

    Example:
        >>> [len(trees(n)) for n in range(1, 9)]
        [1, 1, 2, 4, 9, 20, 48, 115]

    Reference:
        Hairer, Norsett & Wanner (1993), Solving Ordinary Differential Equations I, section II.2.
    """
    return tuple(sorted(children for parts in _partitions(order - 1, order - 1) for children in _forests(parts)))


def vertices(tree: Tree) -> int:
    """Return the number of vertices of `tree`."""
    return 1 + sum(map(vertices, tree))


def density(tree: Tree) -> int:
    r"""Return $\gamma(t) = |t| \prod_i \gamma(t_i)$ over the subtrees $t_i$ at the root.

    Example:
        >>> [density(tree) for tree in trees(4)]
        [4, 8, 12, 24]
    """
    return vertices(tree) * prod(map(density, tree))


def elementary_weights(tree: Tree, a: Sequence[Sequence[float]]) -> list[float]:
    r"""Return the vector $\phi(t)$ for which the order condition of `tree` reads $\sum_i b_i \phi_i(t) = 1/\gamma(t)$.

    It is the product over the subtrees $t_j$ at the root of $A \phi(t_j)$.

    Args:
        tree: The tree.
        a: Coefficients; row `i` holds the entries left of the diagonal, or the whole row.
    """
    weights = [1.0] * len(a)
    for subtree, copies in groupby(tree):
        inner = elementary_weights(subtree, a)
        factors = [sum(x * phi for x, phi in zip(row, inner, strict=False)) for row in a]
        power = len(list(copies))
        weights = [weight * factor**power for weight, factor in zip(weights, factors, strict=True)]
    return weights


def _partitions(total: int, largest: int) -> list[tuple[int, ...]]:
    """Partitions of `total` into non-increasing parts of at most `largest`."""
    if total == 0:
        return [()]
    return [(part, *rest) for part in range(min(total, largest), 0, -1) for rest in _partitions(total - part, part)]


def _forests(parts: tuple[int, ...]) -> list[Tree]:
    """Sorted tuples of trees with these numbers of vertices."""
    forests: list[Tree] = [()]
    for size, group in groupby(parts):
        choices = list(combinations_with_replacement(trees(size), len(list(group))))
        forests = [(*forest, *choice) for forest in forests for choice in choices]
    return forests
