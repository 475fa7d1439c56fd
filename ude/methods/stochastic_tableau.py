"""The coefficients of stochastic Runge-Kutta methods of strong order 1.5, checked when they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import NamedTuple, TypeAlias

from ude.methods.tableau import TOLERANCE, _check_nodes, _check_order, _floats, _order_conditions

Matrix: TypeAlias = Sequence[Sequence[float]]


class Residual(NamedTuple):
    """What is left of an order condition.

    Args:
        condition: What is to be computed.
        expected: What it has to be.
        got: What it is.
    """

    condition: str
    expected: float
    got: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SRITableau:
    r"""Coefficients of an explicit method for Ito equations whose noise is diagonal or scalar.

    With the integrals $I_1 = W$, $I_{11} = (W^2 - h)/2$, $I_{111} = (W^3 - 3 h W)/6$ and
    $I_{10} = \int (W_u - W_s)\, du$ over a step of length $h$, drift stages $f_i = f(t + c^0_i h, H^0_i)$ and diffusion
    stages $g_i = g(t + c^1_i h, H^1_i)$,

    $$ H^0_i = y + h \sum_{j<i} a^0_{ij} f_j + \frac{I_{10}}{h} \sum_{j<i} b^0_{ij} g_j, \qquad
       H^1_i = y + h \sum_{j<i} a^1_{ij} f_j + \sqrt h \sum_{j<i} b^1_{ij} g_j, $$

    $$ y_1 = y + h \sum_i \alpha_i f_i + \sum_i \Big( \beta^1_i I_1 + \beta^2_i \frac{I_{11}}{\sqrt h}
       + \beta^3_i \frac{I_{10}}{h} + \beta^4_i \frac{I_{111}}{h} \Big)\, g_i . $$

    There need not be as many drift stages as diffusion stages.

    Args:
        name: What the method is called in messages.
        a0: Row `i` holds the weights of the drift stages before it in drift stage `i`; entries that are left out, or
            those of later stages, are zero.
        b0: Likewise, of the diffusion stages in drift stage `i`.
        a1: Likewise, of the drift stages in diffusion stage `i`.
        b1: Likewise, of the diffusion stages in diffusion stage `i`.
        c0: Nodes of the drift stages, the sums of the rows of `a0`.
        c1: Nodes of the diffusion stages, the sums of the rows of `a1`.
        alpha: Weights of the drift stages.
        beta1: Weights of the diffusion stages that come with $I_1$.
        beta2: With $I_{11} / \sqrt h$.
        beta3: With $I_{10} / h$.
        beta4: With $I_{111} / h$.
        drift_order: Order of the method where there is no noise; at least 2.
        stability_size: Length of the stability region along the negative real axis, without noise. None if not known.

    Raises:
        ValueError: If the shapes do not fit together, a stage needs a later one, a row sum is not the node, or one of
            the 25 conditions of strong order 1.5 is violated.

    Reference:
        Roessler (2010), Runge-Kutta methods for the strong approximation of solutions of stochastic differential
        equations, SIAM J. Numer. Anal. 48(3), 922-952.
    """

    name: str
    a0: Matrix
    b0: Matrix
    a1: Matrix
    b1: Matrix
    c0: Sequence[float]
    c1: Sequence[float]
    alpha: Sequence[float]
    beta1: Sequence[float]
    beta2: Sequence[float]
    beta3: Sequence[float]
    beta4: Sequence[float]
    drift_order: int = 2
    stability_size: float | None = None

    def __post_init__(self) -> None:
        for name in ("c0", "c1", "alpha", "beta1", "beta2", "beta3", "beta4"):
            object.__setattr__(self, name, _floats(getattr(self, name)))
        drifts, diffusions = len(self.alpha), len(self.beta1)
        for name, rows, columns in (
            ("a0", drifts, drifts),
            ("b0", drifts, diffusions),
            ("a1", diffusions, drifts),
            ("b1", diffusions, diffusions),
        ):
            object.__setattr__(self, name, _lower(self.name, name, getattr(self, name), rows, columns))
        weights = {"c0": drifts, **dict.fromkeys(("c1", "beta2", "beta3", "beta4"), diffusions)}
        _check_lengths(self.name, {name: (len(getattr(self, name)), n) for name, n in weights.items()})
        _check_nodes(self.name, self.a0, self.c0)
        _check_nodes(self.name, self.a1, self.c1)
        _check_drift(self.name, self.a0, self.alpha, self.drift_order)
        _check(self.name, self.residuals())

    def residuals(self) -> list[Residual]:
        """Return the conditions of strong order 1.5, but for the two that the drift has to satisfy without noise."""
        noise0, noise1 = ([sum(row) for row in b] for b in (self.b0, self.b1))
        ones = [1.0] * len(self.beta1)
        # What the weights of each of the four integrals must give on each of these five vectors.
        quantities = {
            "1": (ones, (1, 0, 0, 0)),
            "B1 e": (noise1, (0, 1, 0, 0)),
            "A1 e": (self.c1, (1, 0, -1, 0)),
            "(B1 e)^2": ([x * x for x in noise1], (1, 0, -1, 2)),
            "B1 B1 e": (_times(self.b1, noise1), (0, 0, 0, 1)),
        }
        residuals = [
            Residual(f"beta{k} . {name}", expected, _dot(beta, vector))
            for name, (vector, values) in quantities.items()
            for k, beta, expected in zip(
                range(1, 5), (self.beta1, self.beta2, self.beta3, self.beta4), values, strict=True
            )
        ]
        mixed = _times(self.a1, noise0)
        return [
            *residuals,
            *_noise_in_drift(self.alpha, noise0),
            Residual(
                "beta1 . A1 B0 e / 2 + beta3 . A1 B0 e / 3",
                0.0,
                _dot(self.beta1, mixed) / 2 + _dot(self.beta3, mixed) / 3,
            ),
        ]

    @property
    def estimates_stiffness(self) -> bool:
        """The last two drift stages are taken at the end of the step, where only their states differ."""
        return _ends_twice(self.c0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SRATableau:
    r"""Coefficients of an explicit method for equations with additive noise, whose diffusion is a function of time.

    With $I_1 = W$, $I_{10} = \int (W_u - W_s)\, du$ over a step of length $h$, drift stages
    $f_i = f(t + c^0_i h, H_i)$ and diffusions $g_i = g(t + c^1_i h)$,

    $$ H_i = y + h \sum_{j<i} a^0_{ij} f_j + \sum_j b^0_{ij}\, g_j\, \frac{I_{10}}{h}, \qquad
       y_1 = y + h \sum_i \alpha_i f_i
             + \sum_i g_i \Big( \beta^1_i I_1 + \beta^2_i \frac{I_{10}}{h} \Big) . $$

    Args:
        name: What the method is called in messages.
        a0: Row `i` holds the weights of the drift stages before it in drift stage `i`; entries that are left out, or
            those of later stages, are zero.
        b0: Row `i` holds the weights of the diffusions in drift stage `i`; entries that are left out are zero.
        c0: Nodes of the drift stages, the sums of the rows of `a0`.
        c1: Nodes of the diffusions, all different.
        alpha: Weights of the drift stages.
        beta1: Weights of the diffusions that come with $I_1$.
        beta2: With $I_{10} / h$.
        drift_order: Order of the method where there is no noise; at least 2.
        stability_size: Length of the stability region along the negative real axis, without noise. None if not known.

    Raises:
        ValueError: If the shapes do not fit together, a stage needs a later one, a row sum is not the node, or one of
            the conditions of strong order 1.5 is violated.

    Reference:
        Roessler (2010), Runge-Kutta methods for the strong approximation of solutions of stochastic differential
        equations, SIAM J. Numer. Anal. 48(3), 922-952.
    """

    name: str
    a0: Matrix
    b0: Matrix
    c0: Sequence[float]
    c1: Sequence[float]
    alpha: Sequence[float]
    beta1: Sequence[float]
    beta2: Sequence[float]
    drift_order: int = 2
    stability_size: float | None = None

    def __post_init__(self) -> None:
        for name in ("c0", "c1", "alpha", "beta1", "beta2"):
            object.__setattr__(self, name, _floats(getattr(self, name)))
        drifts, diffusions = len(self.alpha), len(self.c1)
        object.__setattr__(self, "a0", _lower(self.name, "a0", self.a0, drifts, drifts))
        object.__setattr__(self, "b0", tuple(map(_floats, self.b0)))
        _check_lengths(
            self.name,
            {
                "b0": (len(self.b0), drifts),
                "c0": (len(self.c0), drifts),
                "beta1": (len(self.beta1), diffusions),
                "beta2": (len(self.beta2), diffusions),
            },
        )
        if any(len(row) > diffusions for row in self.b0) or len(set(self.c1)) < diffusions:
            raise ValueError(
                f"{self.name}: rows of `b0` must have at most one entry per diffusion, {diffusions}, and the nodes "
                f"`c1` must differ, got rows of lengths {[len(row) for row in self.b0]} and nodes {self.c1}. Add up "
                "the weights of diffusions at the same time."
            )
        _check_nodes(self.name, self.a0, self.c0)
        _check_drift(self.name, self.a0, self.alpha, self.drift_order)
        _check(self.name, self.residuals())

    def residuals(self) -> list[Residual]:
        """Return the conditions of strong order 1.5, but for the two that the drift has to satisfy without noise."""
        return [
            Residual("beta1 . 1", 1.0, sum(self.beta1)),
            Residual("beta2 . 1", 0.0, sum(self.beta2)),
            Residual("beta1 . c1", 1.0, _dot(self.beta1, self.c1)),
            Residual("beta2 . c1", -1.0, _dot(self.beta2, self.c1)),
            *_noise_in_drift(self.alpha, [sum(row) for row in self.b0]),
        ]

    @property
    def estimates_stiffness(self) -> bool:
        """The last two drift stages are taken at the end of the step, where only their states differ."""
        return _ends_twice(self.c0)


def _noise_in_drift(alpha: Sequence[float], noise: Sequence[float]) -> list[Residual]:
    return [
        Residual("alpha . B0 e", 1.0, _dot(alpha, noise)),
        Residual("alpha . (B0 e)^2", 1.5, _dot(alpha, [x * x for x in noise])),
    ]


def _ends_twice(nodes: Sequence[float]) -> bool:
    return len(nodes) > 1 and nodes[-2] == nodes[-1] == 1.0


def _dot(weights: Sequence[float], vector: Sequence[float]) -> float:
    return sum(map(mul, weights, vector))


def _times(matrix: Matrix, vector: Sequence[float]) -> list[float]:
    """Return the product; missing entries of a row are zero."""
    return [_dot(row, vector) for row in matrix]


def _lower(name: str, what: str, matrix: Matrix, rows: int, columns: int) -> tuple[tuple[float, ...], ...]:
    """Return the entries left of the diagonal, having checked that there are no others."""
    given = [_floats(row) for row in matrix]
    if len(given) != rows or any(len(row) > columns for row in given):
        raise ValueError(
            f"{name}: `{what}` must have {rows} rows, one per stage, of at most {columns} entries, got rows of lengths "
            f"{[len(row) for row in given]}."
        )
    for i, row in enumerate(given):
        if any(row[i:]):
            raise ValueError(
                f"{name}: `{what}` must be strictly lower triangular: row {i} has {i} entries left of the diagonal, "
                f"got {row}. Only explicit methods can be given this way."
            )
    return tuple((*row[:i], *[0.0] * (min(i, columns) - len(row))) for i, row in enumerate(given))


def _check_lengths(name: str, lengths: dict[str, tuple[int, int]]) -> None:
    for what, (got, expected) in lengths.items():
        if got != expected or not expected:
            raise ValueError(f"{name}: `{what}` must have one entry per stage, {expected}, got {got}.")


def _check_drift(name: str, a0: Matrix, alpha: Sequence[float], order: int) -> None:
    if order < 2:
        raise ValueError(f"{name}: strong order 1.5 needs order 2 without noise, got `drift_order` = {order}.")
    _check_order(name, "alpha", _order_conditions(a0), alpha, order)


def _check(name: str, residuals: Sequence[Residual]) -> None:
    for condition, expected, got in residuals:
        if abs(got - expected) > TOLERANCE:
            raise ValueError(
                f"{name}: the coefficients do not have strong order 1.5: {condition} must be {expected:g}, got "
                f"{got:.12g}. Check the coefficients against the source."
            )
