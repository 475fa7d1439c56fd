"""One step of the Radau IIA method of order 5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import cbrt, sqrt

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.ad import JacobianProduct, Linearisation
from ude.methods.method import Carry, StepResult, Tolerances
from ude.nonlinear import LU, LinearSolver, Newton, attach_root

C = ((4 - sqrt(6)) / 10, (4 + sqrt(6)) / 10, 1.0)
"""Nodes of Radau's quadrature on [0, 1] with three points."""

REAL_EIGENVALUE = (6 + cbrt(81) - cbrt(9)) / 30
"""The real eigenvalue of the matrix of coefficients."""


def _lagrange(j: int) -> tuple[float, float, float]:
    r"""Return the coefficients of $1, x, x^2$ in $L_j(x) = \prod_{m \neq j} (x - c_m) / (c_j - c_m)$."""
    p, q = (c for m, c in enumerate(C) if m != j)
    scale = 1.0 / ((C[j] - p) * (C[j] - q))
    return p * q * scale, -(p + q) * scale, scale


LAGRANGE = tuple(map(_lagrange, range(3)))
DENSE = tuple((u, v / 2, w / 3) for u, v, w in LAGRANGE)
r"""Coefficients of $\theta, \theta^2, \theta^3$ in $b_j(\theta) = \int_0^\theta L_j$."""

A = tuple(tuple(u * c + v * c**2 + w * c**3 for u, v, w in DENSE) for c in C)
"""The matrix of coefficients; its last row holds the weights of the solution."""


def _null_vector(rows: Sequence[Sequence[complex]]) -> tuple[complex, ...]:
    """Return a vector orthogonal, without conjugation, to the first two of three rows of rank two."""
    (a, b, c), (d, e, f) = rows[:2]
    return b * f - c * e, c * d - a * f, a * e - b * d


def _projections(eigenvalue: complex) -> tuple[tuple[complex, ...], tuple[complex, ...]]:
    """Return right and left eigenvector v, w of `A` with w v = 1."""
    shifted = [[x - eigenvalue * (i == j) for j, x in enumerate(row)] for i, row in enumerate(A)]
    v, w = _null_vector(shifted), _null_vector(list(zip(*shifted, strict=True)))
    scale = sum(x * y for x, y in zip(v, w, strict=True))
    return v, tuple(x / scale for x in w)


# Trace and determinant 1/60 of A give the other two.
_HALF = (sum(A[i][i] for i in range(3)) - REAL_EIGENVALUE) / 2
COMPLEX_EIGENVALUE = complex(_HALF, sqrt(1 / (60 * REAL_EIGENVALUE) - _HALF**2))
"""One of the two complex eigenvalues."""

_V1, _W1 = (tuple(x.real for x in vector) for vector in _projections(REAL_EIGENVALUE))
_V2, _W2 = _projections(COMPLEX_EIGENVALUE)

_E = tuple(REAL_EIGENVALUE / 3 * x for x in (-13 - 7 * sqrt(6), -13 + 7 * sqrt(6), -1.0))
ERROR = tuple(sum(e * row[j] for e, row in zip(_E, A, strict=True)) for j in range(3))
"""Weights of the stages in the error estimate; that of the slope at the start is the real eigenvalue."""


@dataclass(frozen=True, slots=True)
class RadauIIA5:
    r"""The method of Radau with three stages, $k_i = f(t + c_i \Delta t,\; y + \Delta t \sum_j a_{ij} k_j)$.

    Order 5 and stage order 3, L-stable and stiffly accurate: for very stiff problems and tight tolerances. On the test
    problem of Prothero and Robinson, $y' = -(y - g(t))/\epsilon + g'(t)$ with steps long against $\epsilon$, the error
    falls like $\epsilon\, \Delta t^3$, a full order more than that of any ESDIRK method.

    The three coupled stages are found by Newton's method. In the basis of the eigenvectors of the coefficients one
    iteration solves one real and one complex system of the size of the state; Jacobian and factorisations are made
    once per step. The first guess continues the polynomial of the step before. The error estimate, of order 4, is
    $(I - \gamma_0 \Delta t J)^{-1} \Delta t\, (\gamma_0 f(t, y) + \sum_i e_i k_i)$; dense output is the collocation
    polynomial, of order 3.

    The gradient is that of the exact stages, by the implicit function theorem; it exists once. Its linear system is of
    three times the size of the state. The state must be real.

    Args:
        linear_solver: `LU()`, or `GMRES()` for states too large for their Jacobian matrix.
        newton: How far and how long to iterate.

    Example:
        >>> str(RadauIIA5()), RadauIIA5().order
        ('RadauIIA5', 5)

    Reference:
        Hairer & Wanner (1996), Solving Ordinary Differential Equations II, section IV.8.
        Hairer & Wanner (1999), Stiff differential equations solved by Radau methods, J. Comput. Appl. Math. 111,
        93-111.
    """

    linear_solver: LinearSolver = field(default=LU(), kw_only=True)
    newton: Newton = field(default=Newton(), kw_only=True)

    def __str__(self) -> str:
        return "RadauIIA5"

    @property
    def order(self) -> int:
        """Order of convergence; on very stiff problems it may be lower (order reduction)."""
        return 5

    @property
    def error_order(self) -> int:
        """The error estimate shrinks like `dt ** error_order`."""
        return 4

    @property
    def dense_order(self) -> int:
        """Order of the continuous extension: its local error is like `dt ** (dense_order + 1)`."""
        return 3

    @property
    def evaluations(self) -> int:
        """Evaluations in one step of three iterations, as is usual, with three each; every step counts its own."""
        return 9

    @property
    def init_evaluations(self) -> int:
        """Evaluations of the vector field in `init`."""
        return 1

    @property
    def dense_evaluations(self) -> int:
        """Extra evaluations made by `dense_stages`."""
        return 0

    def init(self, f: FlatField, t: Tensor, y: Tensor) -> Carry:
        """Return the stages of an imagined step before, and its length: a constant slope."""
        slope = f(t, y)
        return (torch.ones_like(y[:, :1]), slope, slope.clone(), slope.clone())

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`, with stages solved nearly to rounding.

        Args:
            f: Vector field, called as `f(t, y)`.
            t: Start of the step, shape `(batch,)`.
            dt: Signed length of the step, shape `(batch,)`.
            y: State at `t`, real, shape `(batch, state)`.
            carry: From `init` or from the previous accepted step.

        Returns:
            The new state, the error estimate, the stages, and as stiffness estimate the row-sum norm of the Jacobian,
            which is at least its spectral radius; none with a matrix-free solver. All are NaN for a sample whose
            iteration did not converge.
        """
        return self.step_within(f, t, dt, y, carry, Tolerances.tight(y))

    def step_within(
        self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry, tolerances: Tolerances
    ) -> StepResult:
        """Take one step, with stages as exact as the tolerances of the solve ask for."""
        length, (before, *past) = dt.to(y.dtype).unsqueeze(-1), carry
        jacobian = self.linear_solver.linearise(f, t, y, rate=False).jacobian
        step = length.squeeze(-1)
        real = self.linear_solver.prepare(jacobian, REAL_EIGENVALUE * step)
        pair = self.linear_solver.prepare(jacobian, COMPLEX_EIGENVALUE * step)
        collocation = _Collocation(f, [torch.add(t, dt, alpha=c) for c in C], y, length)
        norm = tolerances.norm(y, length)

        def solve(residual: Tensor) -> Tensor:
            r = residual.unflatten(-1, (3, -1)).unbind(-2)
            x, z = real.solve(_combination(_W1, r)), pair.solve(_combination(_W2, r))
            return torch.cat([v1 * x + 2.0 * (v2 * z).real for v1, v2 in zip(_V1, _V2, strict=True)], -1)

        def size(change: Tensor) -> Tensor:
            k = change.unflatten(-1, (3, -1)).unbind(-2)
            return norm(torch.stack([_combination(row, k) for row in A])).square().mean(0).sqrt()

        with torch.no_grad():
            guess = _continued(past, length / before)
        root = self.newton.iterate(collocation.residual, solve, guess, size)
        k = attach_root(root.z, collocation.residual, self._transposed(collocation, root.z))
        stages = k.unflatten(-1, (3, -1)).unbind(-2)
        defect = torch.add(_combination(ERROR, stages), past[-1], alpha=REAL_EIGENVALUE)
        return StepResult(
            y1=torch.addcmul(y, length, _combination(A[-1], stages)),
            error=real.solve(length * defect),
            stiffness=jacobian.abs().sum(-1).amax(-1) if isinstance(jacobian, Tensor) else None,
            stages=stages,
            carry=(length, *stages),
            evaluations=3 * root.residuals,
        )

    def dense_stages(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, step: StepResult) -> tuple[Tensor, ...]:
        """Return the stages that `dense_weights` refers to: those of the step."""
        return step.stages

    def dense_weights(self, theta: Tensor) -> Tensor:
        r"""Weights $b_j(\theta)$ of the collocation polynomial, shape `(stages, *theta.shape)`.

        Args:
            theta: Fraction of the step, between 0 and 1; real, any shape.
        """
        powers = torch.cumprod(theta.expand(3, *theta.shape), dim=0)
        return torch.tensordot(torch.tensor(DENSE, dtype=theta.dtype, device=theta.device), powers, 1)

    def _transposed(self, collocation: _Collocation, k: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the transposed solve with the exact Jacobians of the three stages."""
        solver = self.linear_solver

        def solve_transposed(w: Tensor) -> Tensor:
            parts = [solver.linearise(collocation.f, t, y, rate=False) for t, y in collocation.arguments(k)]
            return solver.prepare(_coupled(parts), collocation.length.squeeze(-1)).solve_transposed(w)

        return solve_transposed


@dataclass(frozen=True, slots=True)
class _Collocation:
    """The equations of the stages, whose slopes lie side by side in one row per sample.

    Args:
        f: Vector field.
        times: Of the stages, each of shape `(batch,)`.
        y: State at the start, shape `(batch, state)`.
        length: Length of the step, shape `(batch, 1)`.
    """

    f: FlatField
    times: Sequence[Tensor]
    y: Tensor
    length: Tensor

    def arguments(self, k: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return time and state of every stage."""
        stages = k.unflatten(-1, (3, -1)).unbind(-2)
        return [
            (t, torch.addcmul(self.y, self.length, _combination(row, stages)))
            for t, row in zip(self.times, A, strict=True)
        ]

    def residual(self, k: Tensor) -> Tensor:
        return k - torch.cat([self.f(t, y) for t, y in self.arguments(k)], -1)


def _continued(stages: Sequence[Tensor], ratio: Tensor) -> Tensor:
    """Return the slopes at the nodes of a step that is longer by `ratio` than the one before, from its polynomial."""
    guesses = []
    for c in C:
        x = 1.0 + c * ratio
        guesses.append(sum((u + (v + w * x) * x) * k for (u, v, w), k in zip(LAGRANGE, stages, strict=True)))
    return torch.cat(guesses, -1)  # pyright: ignore[reportArgumentType]


def _coupled(parts: Sequence[Linearisation]) -> Tensor | JacobianProduct:
    r"""Return the matrix of blocks $a_{ij} J_i$, or its products."""
    matrices = [part.jacobian for part in parts if isinstance(part.jacobian, Tensor)]
    if len(matrices) == 3:
        rows = [torch.cat([x * J for x in row], -1) for row, J in zip(A, matrices, strict=True)]
        return torch.cat(rows, -2)
    products = [part.jacobian for part in parts if isinstance(part.jacobian, JacobianProduct)]

    def forward(v: Tensor) -> Tensor:
        blocks = v.unflatten(-1, (3, -1)).unbind(-2)
        return torch.cat([J.forward(_combination(row, blocks)) for row, J in zip(A, products, strict=True)], -1)

    def transposed(w: Tensor) -> Tensor:
        blocks = w.unflatten(-1, (3, -1)).unbind(-2)
        images = [J.transposed(block) for J, block in zip(products, blocks, strict=True)]
        return torch.cat([_combination(column, images) for column in zip(*A, strict=True)], -1)

    return JacobianProduct(forward, transposed)


def _combination(weights: Sequence[complex], stages: Sequence[Tensor]) -> Tensor:
    r"""Return $\sum_i w_i k_i$."""
    total = weights[0] * stages[0]
    for weight, stage in zip(weights[1:], stages[1:], strict=True):
        total = total + weight * stage
    return total
