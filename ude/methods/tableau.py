"""The coefficients of an explicit Runge-Kutta method, checked when they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import mul
from typing import TypeAlias

from ude.methods.rooted_trees import Tree, density, elementary_weights, trees, vertices

OrderConditions: TypeAlias = list[tuple[Tree, list[float], int]]
"""Trees, their elementary weights and their densities."""

TOLERANCE = 1e-8
"""Largest residual of an order condition; published decimals have at least ten digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tableau:
    r"""Coefficients of an explicit Runge-Kutta method with $s$ stages.

    $$ k_i = f\Big(t + c_i \Delta t,\; y + \Delta t \sum_{j<i} a_{ij} k_j\Big), \qquad
       y_1 = y + \Delta t \sum_i b_i k_i $$

    The error estimate is $\Delta t \sum_i b^{err}_i k_i$ with $b^{err} = b - \hat b$, where $\hat b$ are the weights
    of a second method on the same stages. Between the ends of the step the solution is
    $y + \Delta t \sum_i b_i(\theta) k_i$ over the $s$ stages and, where `extra_a` and `extra_c` are given, over further
    stages that are evaluated only when dense output is asked for.

    Args:
        name: What the method is called in messages.
        a: Row `i` holds the `i` entries left of the diagonal (the first row is empty); a square matrix with
            zeros on and above the diagonal will do as well.
        b: Weights of the solution, one per stage.
        c: Nodes, one per stage; the sums of the rows of `a`.
        order: Order of `b`. The order conditions up to order 5 are verified.
        b_err: Weights of the error estimate, one per stage; None for a method without one.
        embedded_order: Order of `b - b_err`; verified likewise.
        dense: For every stage, extra ones included, the coefficients of $\theta, \theta^2, \dots$ in
            $b_i(\theta)$. By default the cubic Hermite interpolant, of order 3 at most, which evaluates
            $f(t_1, y_1)$ as an extra stage unless it is the last stage anyway.
        dense_order: Order of $b_i(\theta)$ for every theta; verified likewise.
        extra_a: Rows of the extra stages, each over all stages before it.
        extra_c: Nodes of the extra stages.
        stability_size: Length of the stability region along the negative real axis. A step is limited by
            stability where `dt` times the stiffness estimate comes close to it. None if not known.

    Raises:
        ValueError: If the shapes do not fit together, `a` is not strictly lower triangular, a row sum is not
            the node, or the coefficients do not have the order they claim.

    Example:
        >>> Tableau(name="Heun", a=[[], [1.0]], b=[0.5, 0.5], c=[0.0, 1.0], order=2).fsal
        False
    """

    name: str
    a: Sequence[Sequence[float]]
    b: Sequence[float]
    c: Sequence[float]
    order: int
    b_err: Sequence[float] | None = None
    embedded_order: int | None = None
    dense: Sequence[Sequence[float]] | None = None
    dense_order: int | None = None
    extra_a: Sequence[Sequence[float]] = ()
    extra_c: Sequence[float] = ()
    stability_size: float | None = None
    fsal: bool = field(init=False, repr=False)
    """The last stage is evaluated at the end of the step: it is the first stage of the next one."""

    def __post_init__(self) -> None:
        stages = len(self.b)
        self._set("b", _floats(self.b))
        self._set("c", _floats(self.c))
        self._set("a", tuple(_lower_row(self.name, i, row, stages) for i, row in enumerate(self.a)))
        if not len(self.a) == len(self.c) == stages > 0:
            raise ValueError(
                f"{self.name}: `a`, `b` and `c` must have one entry per stage, got {len(self.a)} rows in `a`, "
                f"{stages} weights in `b` and {len(self.c)} nodes in `c`."
            )
        if self.order < 1:
            raise ValueError(f"{self.name}: `order` must be at least 1, got {self.order}.")
        self._set("fsal", stages > 1 and self.b[-1] == 0.0 and self.a[-1] == self.b[:-1])
        _check_nodes(self.name, self.a, self.c)
        conditions = _order_conditions(self.a)
        _check_order(self.name, "b", conditions, self.b, self.order)
        self._check_error_estimate(conditions)
        if self.dense is None:
            self._use_cubic_hermite()
        self._check_dense()

    def _check_error_estimate(self, conditions: OrderConditions) -> None:
        if (self.b_err is None) != (self.embedded_order is None):
            raise ValueError(
                f"{self.name}: give both `b_err` and `embedded_order`, the order of `b - b_err`, or neither."
            )
        if self.b_err is None or self.embedded_order is None:
            return
        self._set("b_err", _floats(self.b_err))
        if len(self.b_err) != len(self.b):
            raise ValueError(
                f"{self.name}: `b_err` must have one weight per stage, {len(self.b)}, got {len(self.b_err)}."
            )
        embedded = tuple(x - e for x, e in zip(self.b, self.b_err, strict=True))
        _check_order(self.name, "b - b_err", conditions, embedded, self.embedded_order)

    def _use_cubic_hermite(self) -> None:
        if self.extra_a or self.extra_c or self.dense_order is not None:
            raise ValueError(f"{self.name}: `extra_a`, `extra_c` and `dense_order` describe `dense`; give it as well.")
        weights = self.b
        if not self.fsal:
            weights = (*self.b, 0.0)
            self._set("extra_a", (self.b,))
            self._set("extra_c", (1.0,))
        self._set("dense", cubic_hermite(weights))
        self._set("dense_order", min(self.order, 3))

    def _check_dense(self) -> None:
        stages, extra = len(self.b), len(self.extra_a)
        dense = tuple(_floats(row) for row in self.dense or ())
        self._set("dense", dense)
        self._set("extra_c", _floats(self.extra_c))
        self._set("extra_a", tuple(_floats(row) for row in self.extra_a))
        if len(self.extra_c) != extra or [len(row) for row in self.extra_a] != list(range(stages, stages + extra)):
            raise ValueError(
                f"{self.name}: extra stages need one node in `extra_c` and one row in `extra_a` each, over all "
                f"stages before it: lengths {list(range(stages, stages + extra))}, got {len(self.extra_c)} node(s) "
                f"and rows of lengths {[len(row) for row in self.extra_a]}."
            )
        if len(dense) != stages + extra or len({len(row) for row in dense}) != 1 or self.dense_order is None:
            raise ValueError(
                f"{self.name}: `dense` must hold one polynomial per stage, {stages + extra}, all of one length, and "
                f"come with `dense_order`; got lengths {[len(row) for row in dense]}, order {self.dense_order}."
            )
        ends = (*self.b, *[0.0] * extra)
        for i, (row, weight) in enumerate(zip(dense, ends, strict=True)):
            if abs(sum(row) - weight) > TOLERANCE:
                raise ValueError(
                    f"{self.name}: dense output must end at the solution: the coefficients of `dense[{i}]` must sum "
                    f"to {weight}, got {sum(row)}."
                )
        all_a = (*self.a, *self.extra_a)
        _check_nodes(self.name, all_a, (*self.c, *self.extra_c))
        conditions = _order_conditions(all_a)
        # Three points show every polynomial identity of this family that a typing error could break.
        for theta in (0.25, 0.5, 0.75):
            weights = [sum(x * theta ** (j + 1) for j, x in enumerate(row)) for row in dense]
            _check_order(self.name, f"dense at theta = {theta}", conditions, weights, self.dense_order, theta)

    def _set(self, name: str, value: object) -> None:
        """Normalise a field while the frozen value is being made."""
        object.__setattr__(self, name, value)


def cubic_hermite(weights: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    r"""Return $b_i(\theta)$ of the cubic with the right values and slopes at both ends of the step.

    $$ b_i(\theta) = (3\theta^2 - 2\theta^3)\, b_i + \delta_{i1} (\theta - 2\theta^2 + \theta^3)
       + \delta_{is} (\theta^3 - \theta^2) $$

    Args:
        weights: Weights of the solution; the first stage is $f(t_0, y_0)$, the last one $f(t_1, y_1)$.
    """
    last = len(weights) - 1
    return tuple(
        (float(i == 0), 3 * b - 2 * (i == 0) - (i == last), -2 * b + (i == 0) + (i == last))
        for i, b in enumerate(weights)
    )


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _lower_row(name: str, i: int, row: Sequence[float], stages: int) -> tuple[float, ...]:
    """Return the entries left of the diagonal, having checked that there are no others."""
    values = _floats(row)
    if len(values) not in (i, stages) or any(values[i:]):
        raise ValueError(
            f"{name}: `a` must be strictly lower triangular: row {i} has {i} entries left of the diagonal, "
            f"got {values}. Only explicit methods can be given this way."
        )
    return values[:i]


def _check_nodes(name: str, a: Sequence[Sequence[float]], c: Sequence[float]) -> None:
    for i, (row, node) in enumerate(zip(a, c, strict=True)):
        if abs(sum(row) - node) > TOLERANCE:
            raise ValueError(
                f"{name}: row {i} of `a` must sum to the node c[{i}] = {node}, got {sum(row)}. "
                "Check this row against the source."
            )


def _order_conditions(a: Sequence[Sequence[float]]) -> OrderConditions:
    """Return every rooted tree of at most 5 vertices with its elementary weights and density."""
    return [(tree, elementary_weights(tree, a), density(tree)) for n in range(1, 6) for tree in trees(n)]


def _check_order(
    name: str, what: str, conditions: OrderConditions, b: Sequence[float], order: int, theta: float = 1.0
) -> None:
    r"""Check $\sum_i b_i \phi_i(t) = \theta^{|t|} / \gamma(t)$ for all trees of at most `order` vertices."""
    for tree, phi, gamma in conditions:
        n = vertices(tree)
        got, expected = sum(map(mul, b, phi)), theta**n / gamma
        if n <= order and abs(got - expected) > TOLERANCE:
            raise ValueError(
                f"{name}: the weights `{what}` do not have order {order}: the condition of order {n} for the "
                f"rooted tree {tree} gives {got:.12g} instead of {expected:.12g}. "
                f"Check the coefficients against the source, or state order {n - 1}."
            )
