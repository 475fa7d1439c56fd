"""One step of any ESDIRK method, and these methods by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.methods.coefficients.esdirk import KENCARP3, KENCARP4, KVAERNO3, KVAERNO4, KVAERNO5
from ude.methods.coefficients.esdirk import TRBDF2 as TRBDF2_TABLEAU
from ude.methods.combination import combination
from ude.methods.diagonal_tableau import DiagonalTableau
from ude.methods.method import Carry, StepResult, Tolerances
from ude.nonlinear import LU, LinearSolver, LinearSystem, Newton, attach_root


@dataclass(frozen=True, slots=True)
class ESDIRK:
    r"""A diagonally implicit Runge-Kutta method with an explicit first stage, given by its coefficients.

    Each further stage solves $k = f(t_i,\; y_i + \gamma \Delta t\, k)$ by Newton's method. One Jacobian, at the start
    of the step, and one factorisation of $I - \gamma \Delta t J$ serve all stages; one to three evaluations per stage
    are usual. The unknown is the slope $k$, which makes a step of length zero well defined and loses no digits where
    the problem is stiff.

    The gradient is that of the exact stages: by the implicit function theorem, with one evaluation in the forward and
    one Jacobian and one transposed solve per stage in the backward pass, never through the iterations. It exists once.
    The state must be real.

    Args:
        tableau: The coefficients; checked when the tableau was made.
        linear_solver: `LU()`, or `GMRES()` for states too large for their Jacobian matrix.
        newton: How far and how long to iterate.
    """

    tableau: DiagonalTableau
    linear_solver: LinearSolver = field(default=LU(), kw_only=True)
    newton: Newton = field(default=Newton(), kw_only=True)

    def __str__(self) -> str:
        return self.tableau.name

    @property
    def order(self) -> int:
        """Order of convergence; on very stiff problems it may be lower (order reduction)."""
        return self.tableau.order

    @property
    def error_order(self) -> int:
        """The error estimate shrinks like `dt ** error_order`."""
        return min(self.tableau.embedded_order, self.tableau.order) + 1

    @property
    def dense_order(self) -> int | None:
        """Order of the continuous extension: its local error is like `dt ** (dense_order + 1)`."""
        return self.tableau.dense_order

    @property
    def evaluations(self) -> int:
        """Evaluations in one step with two iterations per implicit stage, as is usual; every step counts its own."""
        return 2 * len(self.tableau.b) - 2

    @property
    def init_evaluations(self) -> int:
        """Evaluations of the vector field in `init`."""
        return 1

    @property
    def dense_evaluations(self) -> int:
        """Extra evaluations made by `dense_stages`."""
        return 0

    def init(self, f: FlatField, t: Tensor, y: Tensor) -> Carry:
        """Return the first stage."""
        return (f(t, y),)

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`, with stages solved nearly to rounding.

        Args:
            f: Vector field, called as `f(t, y)`.
            t: Start of the step, shape `(batch,)`.
            dt: Signed length of the step, shape `(batch,)`.
            y: State at `t`, real, shape `(batch, state)`.
            carry: The first stage, from `init` or from the previous accepted step.

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
        tableau, length = self.tableau, dt.to(y.dtype).unsqueeze(-1)
        jacobian = self.linear_solver.linearise(f, t, y, rate=False).jacobian
        # Two tensors, not one and a view of it: what a compiled iteration reads may not share memory.
        scale = tableau.gamma * length
        system = self.linear_solver.prepare(jacobian, tableau.gamma * dt.to(y.dtype))
        size = tolerances.norm(y, scale)
        stages, counts, rate, y1 = [carry[0]], [], None, y
        for i, node in enumerate(tableau.c[1:], 1):
            stage = _Stage(f, torch.add(t, dt, alpha=node), _advance(y, length, tableau.a[i][:-1], stages), scale)
            k, rate, count = self._solve(stage, system, combination(tableau.guesses[i], stages), size, rate)
            stages.append(k)
            counts.append(count)
            y1 = stage.state(k)
        error = length * combination(tableau.b_err, stages)
        return StepResult(
            y1=y1,
            error=system.solve(error) if tableau.filters_error else error,
            stiffness=jacobian.abs().sum(-1).amax(-1) if isinstance(jacobian, Tensor) else None,
            stages=tuple(stages),
            carry=(stages[-1],),
            evaluations=sum(counts[1:], counts[0]),
        )

    def dense_stages(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, step: StepResult) -> tuple[Tensor, ...]:
        """Return the stages that `dense_weights` refers to: those of the step."""
        return step.stages

    def dense_weights(self, theta: Tensor) -> Tensor:
        r"""Weights $b_i(\theta)$ of the continuous extension, shape `(stages, *theta.shape)`.

        Args:
            theta: Fraction of the step, between 0 and 1; real, any shape.
        """
        dense = self.tableau.dense
        assert dense is not None  # the tableau always has one
        powers = torch.cumprod(theta.expand(len(dense[0]), *theta.shape), dim=0)
        return torch.tensordot(torch.tensor(dense, dtype=theta.dtype, device=theta.device), powers, 1)

    def _solve(
        self,
        stage: _Stage,
        system: LinearSystem,
        guess: Tensor,
        size: Callable[[Tensor], Tensor],
        rate: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the slope of a stage, on the autograd graph, the rate of the iteration, and its evaluations."""
        k, rate, count = self.newton.iterate(stage.residual, system.solve, guess, size, rate)
        solver = self.linear_solver

        def solve_transposed(w: Tensor) -> Tensor:
            # The Jacobian of the stage itself: that of the start of the step would give a gradient of low order.
            at = solver.linearise(stage.f, stage.t.detach(), stage.state(k).detach(), rate=False)
            return solver.prepare(at.jacobian, stage.scale.squeeze(-1)).solve_transposed(w)

        return attach_root(k, stage.residual, solve_transposed), rate, count


@dataclass(frozen=True, slots=True)
class _Stage:
    r"""The equation $k = f(t, y + s k)$.

    Args:
        f: Vector field.
        t: Time of the stage, shape `(batch,)`.
        y: What is known of its state, shape `(batch, state)`.
        scale: $s$, shape `(batch, 1)`.
    """

    f: FlatField
    t: Tensor
    y: Tensor
    scale: Tensor

    def state(self, k: Tensor) -> Tensor:
        return torch.addcmul(self.y, self.scale, k)

    def residual(self, k: Tensor) -> Tensor:
        return k - self.f(self.t, self.state(k))


@dataclass(frozen=True, slots=True)
class TRBDF2(ESDIRK):
    """The trapezoidal rule followed by the second backward differentiation formula: robust at loose tolerances.

    Order 2, L-stable; two implicit stages, error estimate of order 3, filtered; cubic Hermite dense output.

    Reference:
        Hosea & Shampine (1996), Analysis and implementation of TR-BDF2, Appl. Numer. Math. 20, 21-37.
    """

    tableau: DiagonalTableau = field(default=TRBDF2_TABLEAU, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class Kvaerno3(ESDIRK):
    """The 3(2) pair of Kvaerno.

    Order 3, both methods L-stable; three implicit stages, cubic Hermite dense output of order 3.
    """

    tableau: DiagonalTableau = field(default=KVAERNO3, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class Kvaerno4(ESDIRK):
    """The 4(3) pair of Kvaerno.

    Order 4, both methods L-stable; four implicit stages, cubic Hermite dense output of order 3.
    """

    tableau: DiagonalTableau = field(default=KVAERNO4, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class Kvaerno5(ESDIRK):
    r"""The 5(4) pair of Kvaerno: for stiff problems whose Jacobian changes too fast for Rosenbrock methods.

    Order 5, L-stable; six implicit stages, dense output of order 4. The stage order is 2: on the test problem
    of Prothero and Robinson, $y' = -(y - g(t))/\epsilon + g'(t)$ with steps long against $\epsilon$, the error falls
    like $\epsilon\, \Delta t^2$.

    Example:
        >>> str(Kvaerno5()), Kvaerno5().order
        ('Kvaerno5', 5)

    Reference:
        Kvaerno (2004), Singly diagonally implicit Runge-Kutta methods with an explicit first stage, BIT 44, 489-502.
    """

    tableau: DiagonalTableau = field(default=KVAERNO5, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class KenCarp3(ESDIRK):
    """The implicit half of the 3(2) pair of Kennedy and Carpenter, ARK3(2)4L[2]SA.

    Order 3, L-stable; three implicit stages, cubic Hermite dense output of order 3.
    """

    tableau: DiagonalTableau = field(default=KENCARP3, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class KenCarp4(ESDIRK):
    """The implicit half of the 4(3) pair of Kennedy and Carpenter, ARK4(3)6L[2]SA.

    Order 4, L-stable; five implicit stages, cubic Hermite dense output of order 3.

    Reference:
        Kennedy & Carpenter (2003), Additive Runge-Kutta schemes for convection-diffusion-reaction equations, Appl.
        Numer. Math. 44, 139-181.
    """

    tableau: DiagonalTableau = field(default=KENCARP4, init=False, repr=False)


def _advance(y: Tensor, length: Tensor, weights: Sequence[float], stages: Sequence[Tensor]) -> Tensor:
    r"""Return $y + \Delta t \sum_i w_i k_i$."""
    return torch.addcmul(y, length, combination(weights, stages))
