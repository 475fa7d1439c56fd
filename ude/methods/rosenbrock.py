"""One step of any Rosenbrock method, and these methods by name."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.ad import JacobianProduct
from ude.methods.coefficients.rodas4 import RODAS4
from ude.methods.coefficients.rodas5p import RODAS5P
from ude.methods.coefficients.rosenbrock23 import ROSENBROCK23
from ude.methods.combination import combination
from ude.methods.method import Carry, StepResult
from ude.methods.rosenbrock_tableau import RosenbrockTableau
from ude.nonlinear import LU, LinearSolver


@dataclass(frozen=True, slots=True)
class Rosenbrock:
    r"""A Rosenbrock method given by its coefficients: implicit enough for stiff problems, and no iteration.

    One Jacobian, one factorisation and one linear solve per stage make a step; its shape never changes, so that it
    compiles and differentiates as explicit steps do. The stages are $k_i = u_i / \Delta t$ with the $u_i$ of
    `RosenbrockTableau`, which makes a step of length zero well defined:

    $$ (I - \gamma \Delta t J)\, k_i = \gamma \Big( f\Big(t + \alpha_i \Delta t,\;
       y + \Delta t \sum_{j<i} a_{ij} k_j\Big) + \sum_{j<i} c_{ij} k_j + \gamma_i \Delta t\, f_t \Big) $$

    Jacobian and rate in time come from one pass of `ude.ad.linearise`, or from `ODEProblem(jacobian=...)`. The state
    must be real.

    Args:
        tableau: The coefficients; checked when the tableau was made.
        linear_solver: `LU()`, or `GMRES()` for states too large for their Jacobian matrix.
    """

    tableau: RosenbrockTableau
    linear_solver: LinearSolver = field(default=LU(), kw_only=True)

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
    def dense_order(self) -> int:
        """Order of the continuous extension: its local error is like `dt ** (dense_order + 1)`."""
        return self.tableau.dense_order

    @property
    def evaluations(self) -> int:
        """Evaluations in one step, one per stage; the first is the pass that gives the Jacobian as well."""
        return len(self.tableau.b)

    @property
    def init_evaluations(self) -> int:
        """Evaluations of the vector field in `init`."""
        return 0

    @property
    def dense_evaluations(self) -> int:
        """Extra evaluations made by `dense_stages`."""
        return 0

    def init(self, f: FlatField, t: Tensor, y: Tensor) -> Carry:
        """Return nothing: no step depends on the one before."""
        return ()

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`.

        Args:
            f: Vector field, called as `f(t, y)`.
            t: Start of the step, shape `(batch,)`.
            dt: Signed length of the step, shape `(batch,)`.
            y: State at `t`, real, shape `(batch, state)`.
            carry: Nothing.

        Returns:
            The new state, the error estimate, the stages, and as stiffness estimate the row-sum norm of the Jacobian,
            which is at least its spectral radius; with a matrix-free solver, how much it stretches the last stage.
        """
        tableau, length = self.tableau, dt.to(y.dtype).unsqueeze(-1)
        at = self.linear_solver.linearise(f, t, y)
        assert at.rate is not None  # it was asked for
        system = self.linear_solver.prepare(at.jacobian, tableau.gamma * length.squeeze(-1))
        drift, value = length * at.rate, at.value
        stages: list[Tensor] = []
        for i, (c, node, rate) in enumerate(zip(tableau.c, tableau.nodes, tableau.rates, strict=True)):
            if i:
                argument = torch.addcmul(y, length, combination(tableau.a[i], stages))
                value = f(torch.add(t, dt, alpha=node), argument)
            right = torch.add(value, drift, alpha=rate)
            if i:
                right = right + combination(c, stages)
            stages.append(system.solve(tableau.gamma * right))
        return StepResult(
            y1=torch.addcmul(y, length, combination(tableau.b, stages)),
            error=length * combination(tableau.b_err, stages),
            stiffness=_stiffness(at.jacobian, stages[-1]),
            stages=tuple(stages),
            carry=(),
        )

    def dense_stages(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, step: StepResult) -> tuple[Tensor, ...]:
        """Return the stages that `dense_weights` refers to: those of the step."""
        return step.stages

    def dense_weights(self, theta: Tensor) -> Tensor:
        r"""Weights $b_i(\theta)$ of the continuous extension, shape `(stages, *theta.shape)`.

        Args:
            theta: Fraction of the step, between 0 and 1; real, any shape.
        """
        precise = theta if theta.device.type == "mps" else theta.double()
        coefficients = torch.tensor(self.tableau.dense, dtype=precise.dtype, device=theta.device)
        powers = torch.cumprod(precise.expand(coefficients.shape[1], *theta.shape), dim=0)
        return torch.tensordot(coefficients, powers, 1).to(theta.dtype)


@dataclass(frozen=True, slots=True)
class Rosenbrock23(Rosenbrock):
    """The 2(3) pair of Shampine and Reichelt, also known as `ode23s`: cheap steps for loose tolerances.

    Order 2, L-stable; three evaluations and one Jacobian per step, error estimate of order 3, free dense output of
    order 2.

    Reference:
        Shampine & Reichelt (1997), The MATLAB ODE suite, SIAM J. Sci. Comput. 18(1), 1-22.
    """

    tableau: RosenbrockTableau = field(default=ROSENBROCK23, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class Rodas4(Rosenbrock):
    """The 4(3) pair RODAS of Hairer and Wanner.

    Order 4, L-stable and stiffly accurate; six evaluations and one Jacobian per step, error estimate of order 4, free
    dense output of order 3.

    Reference:
        Hairer & Wanner (1996), Solving Ordinary Differential Equations II, section VI.4.
    """

    tableau: RosenbrockTableau = field(default=RODAS4, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class Rodas5P(Rosenbrock):
    r"""The 5(4) pair of Steinebach: the method to try first on stiff problems.

    Order 5, L-stable and stiffly accurate; eight evaluations and one Jacobian per step, error estimate of order 5, free
    dense output of order 4. On the test problem of Prothero and Robinson, $y' = (g(t) - y) / \epsilon + g'(t)$ with
    steps long against $\epsilon$, its error falls like $\epsilon\, \Delta t^3$, that of `Rodas4` like
    $\epsilon\, \Delta t$.

    Example:
        >>> str(Rodas5P()), Rodas5P().order, Rodas5P().evaluations
        ('Rodas5P', 5, 8)

    Reference:
        Steinebach (2023), Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks within the Julia
        Differential Equations package, BIT Numer. Math. 63, 27.
    """

    tableau: RosenbrockTableau = field(default=RODAS5P, init=False, repr=False)


def _stiffness(jacobian: Tensor | JacobianProduct, direction: Tensor) -> Tensor:
    r"""Return a norm of the Jacobian per sample: $\max_i \sum_j |J_{ij}|$, or $\|J v\| / \|v\|$, zero at rest."""
    if isinstance(jacobian, Tensor):
        return jacobian.abs().sum(-1).amax(-1)
    v = direction.detach()
    length = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    unit = v / torch.where(length > 0.0, length, 1.0)
    square = jacobian.forward(unit).square().sum(-1)
    usable = square > 0.0
    return torch.where(usable, torch.where(usable, square, 1.0).sqrt(), 0.0)
