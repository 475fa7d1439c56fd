"""The coefficients of a diagonally implicit Runge-Kutta method, checked when they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ude.methods.tableau import TOLERANCE, _check_nodes, _check_order, _order_conditions, cubic_hermite

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagonalTableau:
    r"""Coefficients of an ESDIRK method with $s$ stages: explicit first stage, one diagonal entry, stiffly accurate.

    $$ k_1 = f(t, y), \qquad
       k_i = f\Big(t + c_i \Delta t,\; y + \Delta t \sum_{j<i} a_{ij} k_j + \gamma \Delta t\, k_i\Big), \qquad
       y_1 = y + \Delta t \sum_i a_{si} k_i $$

    The last stage is the slope at the end of the step and the first one of the next step. The error estimate is
    $\Delta t \sum_i b^{err}_i k_i$. Between the ends of the step the solution is $y + \Delta t \sum_i b_i(\theta) k_i$.

    Args:
        name: What the method is called in messages.
        a: Row `i` holds the `i + 1` entries up to the diagonal. The first row is zero, the diagonal of the others
            $\gamma$; the last row holds the weights of the solution.
        c: Nodes, one per stage; the sums of the rows of `a`.
        order: Order of the solution. The order conditions up to order 5 are verified.
        b_err: Weights of the error estimate, one per stage.
        embedded_order: Order of the solution less the error estimate; verified likewise.
        filters_error: Multiply the error estimate by $(I - \gamma \Delta t J)^{-1}$, for pairs whose estimate does not
            vanish as a stiff rate goes to infinity.
        dense: For every stage the coefficients of $\theta, \theta^2, \dots$ in $b_i(\theta)$; by default the cubic
            Hermite interpolant, of order 3 at most.
        dense_order: Order of $b_i(\theta)$ for every theta; verified likewise.

    Raises:
        ValueError: If the shapes do not fit together, a row sum is not the node, or the coefficients do not have the
            order they claim.

    Example:
        >>> trapezoid = DiagonalTableau(
        ...     name="Trapezoid", a=[[0.0], [0.5, 0.5]], c=[0.0, 1.0], order=2, b_err=[-0.5, 0.5], embedded_order=1
        ... )
        >>> trapezoid.gamma, trapezoid.gain_at_infinity
        (0.5, -1.0)

    Reference:
        Kvaerno (2004), Singly diagonally implicit Runge-Kutta methods with an explicit first stage, BIT 44, 489-502.
    """

    name: str
    a: Sequence[Sequence[float]]
    c: Sequence[float]
    order: int
    b_err: Sequence[float]
    embedded_order: int
    filters_error: bool = False
    dense: Sequence[Sequence[float]] | None = None
    dense_order: int | None = None
    guesses: Matrix = field(init=False, repr=False)
    """Row `i` holds the weights of the first `i` stages in the first guess of stage `i`."""

    def __post_init__(self) -> None:
        for name in ("c", "b_err"):
            self._set(name, tuple(map(float, getattr(self, name))))
        self._set("a", tuple(tuple(map(float, row)) for row in self.a))
        self._check_shape()
        _check_nodes(self.name, self.a, self.c)
        conditions = _order_conditions(self.a)
        _check_order(self.name, "a[-1]", conditions, self.b, self.order)
        embedded = tuple(x - e for x, e in zip(self.b, self.b_err, strict=True))
        _check_order(self.name, "a[-1] - b_err", conditions, embedded, self.embedded_order)
        if self.dense is None:
            self._set("dense", cubic_hermite(self.b))
            self._set("dense_order", min(self.order, 3))
        self._check_dense()
        self._set("guesses", tuple(_guess(self.c, i) for i in range(len(self.c))))

    @property
    def gamma(self) -> float:
        """The diagonal of `a`."""
        return self.a[-1][-1]

    @property
    def b(self) -> Sequence[float]:
        """Weights of the solution."""
        return self.a[-1]

    @property
    def gain_at_infinity(self) -> float:
        r"""Stability function at infinity, zero for an L-stable method.

        With $A = \begin{pmatrix} 0 & 0 \\ a & \hat A \end{pmatrix}$ it is the last entry of $-\hat A^{-1} a$.
        """
        solution: list[float] = []
        for row in self.a[1:]:
            known = sum(x * z for x, z in zip(row[1:-1], solution, strict=True))
            solution.append(-(row[0] + known) / row[-1])
        return solution[-1]

    def _check_shape(self) -> None:
        stages = len(self.a)
        if stages < 2 or [len(row) for row in self.a] != list(range(1, stages + 1)):
            raise ValueError(
                f"{self.name}: row i of `a` must hold the i + 1 entries up to the diagonal, for two stages or more, "
                f"got rows of lengths {[len(row) for row in self.a]}."
            )
        if len(self.c) != stages or len(self.b_err) != stages:
            raise ValueError(
                f"{self.name}: `c` and `b_err` must have one entry per stage, {stages}, got {len(self.c)} and "
                f"{len(self.b_err)}."
            )
        diagonal = [row[-1] for row in self.a]
        if diagonal[0] != 0.0 or self.gamma <= 0.0 or any(x != self.gamma for x in diagonal[1:]):
            raise ValueError(
                f"{self.name}: the diagonal of `a` must be zero in the first row and one positive number in the "
                f"others, got {diagonal}. Only methods with an explicit first stage can be given this way."
            )
        if self.c[-1] != 1.0:
            raise ValueError(f"{self.name}: the last stage must lie at the end of the step, c = 1, got {self.c[-1]}.")

    def _check_dense(self) -> None:
        dense = tuple(tuple(map(float, row)) for row in self.dense or ())
        self._set("dense", dense)
        if len(dense) != len(self.a) or len({len(row) for row in dense}) != 1 or self.dense_order is None:
            raise ValueError(
                f"{self.name}: `dense` must hold one polynomial per stage, {len(self.a)}, all of one length, and come "
                f"with `dense_order`; got lengths {[len(row) for row in dense]}, order {self.dense_order}."
            )
        if any(abs(sum(row) - weight) > TOLERANCE for row, weight in zip(dense, self.b, strict=True)):
            raise ValueError(
                f"{self.name}: dense output must end at the solution: the coefficients of each polynomial in `dense` "
                "must sum to the entry of the last row of `a`."
            )
        conditions = _order_conditions(self.a)
        for theta in (0.25, 0.5, 0.75):
            weights = [sum(x * theta ** (j + 1) for j, x in enumerate(row)) for row in dense]
            _check_order(self.name, f"dense at theta = {theta}", conditions, weights, self.dense_order, theta)

    def _set(self, name: str, value: object) -> None:
        """Normalise a field while the frozen value is being made."""
        object.__setattr__(self, name, value)


def _guess(c: Sequence[float], i: int) -> tuple[float, ...]:
    """Return the weights of the straight line through the first and the last known stage, at the node of stage i."""
    if i < 2 or c[i - 1] == 0.0:
        return (1.0,) * min(i, 1) + (0.0,) * max(i - 1, 0)
    slope = c[i] / c[i - 1]
    return (1.0 - slope, *[0.0] * (i - 2), slope)
