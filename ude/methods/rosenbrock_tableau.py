"""The coefficients of a Rosenbrock method, checked when they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from operator import mul

from ude.methods.rooted_trees import Tree, density, trees, vertices

TOLERANCE = 1e-8
"""Largest residual of an order condition; published decimals have at least ten digits."""

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RosenbrockTableau:
    r"""Coefficients of a Rosenbrock method with $s$ stages, in the variables that need no product with $J$.

    $$ \Big(\frac{I}{\gamma \Delta t} - J\Big) u_i = f\Big(t + \alpha_i \Delta t,\; y + \sum_{j<i} a_{ij} u_j\Big)
       + \sum_{j<i} \frac{c_{ij}}{\Delta t} u_j + \gamma_i \Delta t\, f_t, \qquad y_1 = y + \sum_i b_i u_i $$

    with $J = \partial f / \partial y$ and $f_t = \partial f / \partial t$ at the start of the step. The error estimate
    is $\sum_i b^{err}_i u_i$, and between the ends of the step the solution is $y + \sum_i b_i(\theta) u_i$.

    In the usual variables, $k_i = f(y + \Delta t \sum_j \alpha_{ij} k_j) + \Delta t J \sum_j \gamma_{ij} k_j$, the
    coefficients are $\Gamma = (I/\gamma - C)^{-1}$, $\alpha = A \Gamma$ and $b^T \Gamma$.

    Args:
        name: What the method is called in messages.
        gamma: The diagonal of $\Gamma$.
        a: Row `i` holds the `i` entries left of the diagonal.
        c: Likewise.
        b: Weights of the solution, one per stage.
        order: Order of `b`. All order conditions up to order 5 are verified.
        b_err: Weights of the error estimate, one per stage.
        embedded_order: Order of `b - b_err`; verified likewise.
        dense: For every stage the coefficients of $\theta, \theta^2, \dots$ in $b_i(\theta)$.
        dense_order: Order of $b_i(\theta)$ for every theta; verified likewise.

    Raises:
        ValueError: If the shapes do not fit together or the coefficients do not have the order they claim.

    Reference:
        Hairer & Wanner (1996), Solving Ordinary Differential Equations II, section IV.7.
    """

    name: str
    gamma: float
    a: Matrix
    c: Matrix
    b: tuple[float, ...]
    order: int
    b_err: tuple[float, ...]
    embedded_order: int
    dense: Matrix
    dense_order: int
    alpha: Matrix = field(init=False, repr=False)
    r"""$\alpha_{ij}$ of the usual variables."""
    gammas: Matrix = field(init=False, repr=False)
    r"""$\gamma_{ij}$ of the usual variables, diagonal included."""
    nodes: tuple[float, ...] = field(init=False, repr=False)
    r"""$\alpha_i = \sum_j \alpha_{ij}$: where in the step the stages are evaluated."""
    rates: tuple[float, ...] = field(init=False, repr=False)
    r"""$\gamma_i = \sum_j \gamma_{ij}$: the part of the rate in time."""

    def __post_init__(self) -> None:
        stages = len(self.b)
        rows = list(range(stages))
        shapes = {"a": [*map(len, self.a)] == rows, "c": [*map(len, self.c)] == rows}
        shapes |= {"b_err": len(self.b_err) == stages, "dense": len(self.dense) == stages}
        wrong = [name for name, fits in shapes.items() if not fits]
        if wrong:
            raise ValueError(
                f"{self.name}: expected {stages} stages as in `b`, got another number in {wrong}. Row i of `a` and `c` "
                "holds the i entries left of the diagonal; `b_err` and `dense` have one entry per stage."
            )
        gammas = _inverse_of_lower(self.gamma, self.c)
        object.__setattr__(self, "gammas", gammas)
        object.__setattr__(self, "alpha", tuple(_times(row, gammas) for row in self.a))
        object.__setattr__(self, "nodes", tuple(_row_sum(row) for row in self.alpha))
        object.__setattr__(self, "rates", tuple(_row_sum(row) for row in gammas))
        embedded = tuple(x - e for x, e in zip(self.b, self.b_err, strict=True))
        self._check_order("b", self.b, self.order)
        self._check_order("b - b_err", embedded, self.embedded_order)
        for theta in (0.25, 0.5, 0.75, 1.0):
            weights = [sum(x * theta ** (j + 1) for j, x in enumerate(row)) for row in self.dense]
            self._check_order(f"dense at theta = {theta}", weights, self.dense_order, theta)

    @property
    def gain_at_infinity(self) -> float:
        r"""Stability function at infinity, $1 - b^T (\alpha + \Gamma)^{-1} 1$; zero for an L-stable method."""
        stages = len(self.b)
        weights = _times(self.b, self.gammas)
        solution: list[float] = []
        for i in range(stages):
            row = [x + y for x, y in zip(self.alpha[i], self.gammas[i], strict=True)]
            solution.append((1.0 - sum(map(mul, row[:i], solution))) / row[i])
        return 1.0 - sum(map(mul, weights, solution))

    def residual(self, weights: Sequence[float], tree: Tree, theta: float = 1.0) -> float:
        r"""Return $\sum_i b_i \Phi_i(t) - \theta^{|t|} / \gamma(t)$ for weights of the $u_i$."""
        phi = self._elementary_weights(tree)
        return sum(map(mul, _times(weights, self.gammas), phi)) - theta ** vertices(tree) / density(tree)

    def _elementary_weights(self, tree: Tree) -> list[float]:
        r"""A vertex with one child takes it by $\alpha + \Gamma$, one with several by $\alpha$ (theorem IV.7.4)."""
        matrix = self.alpha
        if len(tree) == 1:
            pairs = zip(self.alpha, self.gammas, strict=True)
            matrix = tuple(tuple(x + y for x, y in zip(row, other, strict=True)) for row, other in pairs)
        inner = [self._elementary_weights(subtree) for subtree in tree]
        return [prod(sum(map(mul, row, phi)) for phi in inner) for row in matrix]

    def _check_order(self, what: str, weights: Sequence[float], order: int, theta: float = 1.0) -> None:
        for n in range(1, min(order, 5) + 1):
            for tree in trees(n):
                residual = self.residual(weights, tree, theta)
                if abs(residual) > TOLERANCE:
                    raise ValueError(
                        f"{self.name}: the weights `{what}` do not have order {order}: the condition of order {n} for "
                        f"the rooted tree {tree} leaves {residual:.3g}. Check the coefficients against the source, or "
                        f"state order {n - 1}."
                    )


def _inverse_of_lower(gamma: float, c: Matrix) -> Matrix:
    r"""Return $(I/\gamma - C)^{-1}$ for a strictly lower triangular C, as a square matrix."""
    stages = len(c)
    inverse: list[tuple[float, ...]] = []
    for i, row in enumerate(c):
        known = _times(row, inverse) if row else (0.0,) * stages
        inverse.append(tuple(gamma * (x + (i == j)) for j, x in enumerate(known)))
    return tuple(inverse)


def _row_sum(row: Sequence[float]) -> float:
    """Return the sum, or the whole number that it is but for rounding: no stage lies beyond the end of the step."""
    total = sum(row)
    return float(round(total)) if abs(total - round(total)) < 1e-12 else total


def _times(weights: Sequence[float], matrix: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return weights times a square lower triangular matrix; fewer weights count as zeros."""
    stages = len(matrix[0])
    return tuple(sum(w * row[j] for w, row in zip(weights, matrix, strict=False)) for j in range(stages))
