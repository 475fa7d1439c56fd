"""One step of the numerical differentiation formulas of orders 1 to 5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.ad import JacobianProduct
from ude.ad.recording import is_transformed
from ude.methods.method import Carry, StepResult, Tolerances
from ude.nonlinear import LU, LinearSolver, Newton, Root, attach_root

KAPPA = (0.0, -0.1850, -1 / 9, -0.0823, -0.0415, 0.0)
"""What makes numerical differentiation formulas of the backward ones, by order (Shampine and Reichelt, table 1)."""

GAMMA = tuple(sum(1.0 / j for j in range(1, k + 1)) for k in range(6))
ALPHA = tuple((1.0 - kappa) * gamma for kappa, gamma in zip(KAPPA, GAMMA, strict=True))
ERROR = (*(kappa * gamma + 1.0 / (k + 1) for k, (kappa, gamma) in enumerate(zip(KAPPA, GAMMA, strict=True))), 1.0 / 7)
"""The local error of order k is `ERROR[k]` times the backward difference of order k + 1."""

SAFETY, LEAST, MOST = 0.9, 0.2, 10.0
SLOW = 0.2
"""Rate of Newton's method above which the next step makes a new Jacobian."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BDF:
    r"""Numerical differentiation formulas of variable order and step: for long, smooth and expensive stiff problems.

    With the backward differences $\nabla^j y$ of the past on a grid of constant step $\Delta t$, order k solves

    $$ (1 - \kappa_k) \gamma_k\, (y_1 - \hat y_1) + \sum_{j=1}^k \gamma_j \nabla^j y = \Delta t\, f(t_1, y_1), \qquad
       \hat y_1 = \sum_{j=0}^k \nabla^j y, \qquad \gamma_j = \sum_{i=1}^j \frac1i $$

    One or two evaluations per step are usual. Orders 1 and 2 are L-stable; orders 3, 4 and 5 are stable only within
    80, 66 and 51 degrees of the negative real axis: solve oscillating problems with `max_order=2` or with a Runge-Kutta
    method. A start, or a restart after an event, begins with order 1.

    Every sample has its own order. Once k + 1 steps have had one length, the errors that orders k - 1, k and k + 1
    would make decide on the order and the length of the next steps, in place of the controller; the length stays the
    same in between. A step of any other length interpolates its past anew. Eagerly, Newton's method keeps its Jacobian
    until the length changes, convergence is slow or fails; compiled, every step makes its own, which changes results
    within the tolerance of Newton's method. Dense output is the polynomial through the past.

    The gradient is that of the exact solution of each step, by the implicit function theorem; it exists once. The
    state must be real.

    Args:
        max_order: Highest order, 1 to 5.
        linear_solver: `LU()`, or `GMRES()` for states too large for their Jacobian matrix.
        newton: How far and how long to iterate.

    Raises:
        ValueError: If the order is no integer from 1 to 5.

    Example:
        >>> str(BDF()), BDF(max_order=2).order
        ('BDF', 2)

    Reference:
        Shampine & Reichelt (1997), The MATLAB ODE suite, SIAM J. Sci. Comput. 18(1), 1-22.
        Byrne & Hindmarsh (1975), A polyalgorithm for the numerical solution of ordinary differential equations, ACM
        Trans. Math. Softw. 1, 71-96.
    """

    max_order: int = 5
    linear_solver: LinearSolver = field(default=LU())
    newton: Newton = field(default=Newton())

    def __post_init__(self) -> None:
        if not isinstance(self.max_order, int) or isinstance(self.max_order, bool) or not 1 <= self.max_order <= 5:
            raise ValueError(f"`max_order` must be an integer from 1 to 5, got {self.max_order!r}.")

    def __str__(self) -> str:
        return "BDF" if self.max_order == 5 else f"BDF({self.max_order})"

    @property
    def order(self) -> int:
        """Highest order of convergence."""
        return self.max_order

    @property
    def error_order(self) -> int:
        """The error estimate of the first steps shrinks like `dt ** error_order`; later ones know their own order."""
        return 2

    @property
    def dense_order(self) -> int:
        """Highest order of the continuous extension."""
        return self.max_order

    @property
    def evaluations(self) -> int:
        """Evaluations of the vector field in one step, as is usual; every step counts its own."""
        return 2

    @property
    def init_evaluations(self) -> int:
        """Evaluations of the vector field in `init`: the slope."""
        return 1

    @property
    def dense_evaluations(self) -> int:
        """Extra evaluations made by `dense_stages`."""
        return 0

    def init(self, f: FlatField, t: Tensor, y: Tensor) -> Carry:
        """Return a past of one step of length 1 with the slope of the start, and the Jacobian."""
        slope = f(t, y)
        zero = torch.zeros_like(y)
        one = torch.ones_like(y[:, 0])
        past = _Past(
            differences=torch.stack([y, slope, *[zero] * (self.max_order + 1)], 1),
            order=one,
            length=one,
            equal=torch.zeros_like(one),
            rate=torch.full_like(one, torch.inf),
        )
        return past.pack(self._jacobian(f, t, y))

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`, solved nearly to rounding.

        Args:
            f: Vector field, called as `f(t, y)`.
            t: Start of the step, shape `(batch,)`.
            dt: Signed length of the step, shape `(batch,)`.
            y: State at `t`, real, shape `(batch, state)`.
            carry: From `init` or from the previous accepted step.

        Returns:
            The new state, the error estimate, the backward differences over `dt` as stages, and the length of the next
            step over that of this one. All are NaN for a sample whose iteration did not converge.
        """
        return self.step_within(f, t, dt, y, carry, Tolerances.tight(y))

    def step_within(
        self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry, tolerances: Tolerances
    ) -> StepResult:
        """Take one step, as exactly as the tolerances of the solve ask for."""
        past, length = _Past.unpack(carry, y), dt.to(y.dtype)
        changed = length != past.length
        differences = past.rescaled(length / past.length, y)
        order, t1 = past.order.long(), t + dt
        guess, c = differences.sum(1), length / _lookup(ALPHA, order, y)
        history = torch.einsum("j,bjn->bn", y.new_tensor(_padded(GAMMA, differences)), differences)
        corrector = _Corrector(f, t1, guess, history / _lookup(ALPHA, order, y).unsqueeze(-1), c.unsqueeze(-1))

        anew = changed | ((past.rate > SLOW) & past.rate.isfinite())
        size = tolerances.norm(y, torch.ones_like(y[:, :1]))
        root, jacobian = self._solve(corrector, carry, anew, torch.where(anew, torch.inf, past.rate), size)
        d = attach_root(root.z, corrector.residual, self._transposed(corrector, root.z))

        updated = _updated(differences, d, past)
        y1 = guess + d
        with torch.no_grad():
            equal = torch.where(changed, 0.0, past.equal) + 1.0
            choice = self._choose(updated, d, order, equal, _ratio_norm(tolerances, y, y1))
        following = _Past(differences=updated, order=choice.order, length=length, equal=choice.equal, rate=root.rate)
        return StepResult(
            y1=y1,
            error=_lookup(ERROR, order, y).unsqueeze(-1) * d,
            stiffness=None,
            stages=_stages(updated, order, length, self.max_order),
            carry=following.pack(jacobian),
            factor=choice.factor.to(dt.dtype),
            evaluations=root.residuals,
        )

    def dense_stages(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, step: StepResult) -> tuple[Tensor, ...]:
        """Return the stages that `dense_weights` refers to: those of the step."""
        return step.stages

    def dense_weights(self, theta: Tensor) -> Tensor:
        r"""Weights $(\theta - 1)\, \theta \cdots (\theta + j - 2) / j!$, one for the first difference being $\theta$.

        They are those of Newton's interpolation through the end of the step and its past, shape
        `(stages, *theta.shape)`.

        Args:
            theta: Fraction of the step, between 0 and 1; real, any shape.
        """
        weights, product = [theta], theta - 1.0
        for j in range(2, self.max_order + 1):
            product = product * (theta + (j - 2)) / j
            weights.append(product)
        return torch.stack(weights)

    def _jacobian(self, f: FlatField, t: Tensor, y: Tensor) -> Tensor | JacobianProduct:
        # Copies, since products hold on to them: what a compiled iteration reads may not share memory.
        with torch.no_grad():
            return self.linear_solver.linearise(f, t.clone(), y.clone(), rate=False).jacobian

    def _solve(
        self, corrector: _Corrector, carry: Carry, anew: Tensor, rate: Tensor, size: Callable[[Tensor], Tensor]
    ) -> tuple[Root, Tensor | JacobianProduct]:
        """Return the root and the Jacobian used, which is kept from earlier steps while that works."""

        def fresh() -> Tensor | JacobianProduct:
            return self._jacobian(corrector.f, corrector.t, corrector.guess)

        # Products cost nothing to make; and only an eager step can see that nobody needs a matrix.
        if len(carry) < 3 or is_transformed() or bool(anew.all()):
            jacobian = fresh()
            return self._iterate(corrector, jacobian, size, rate), jacobian
        kept = carry[2].detach().unflatten(-1, (corrector.guess.shape[-1], -1))
        jacobian = _where(anew, fresh(), kept) if bool(anew.any()) else kept
        root = self._iterate(corrector, jacobian, size, rate)
        again = root.z.isnan().any(-1) & ~anew
        if not bool(again.any()):
            return root, jacobian
        jacobian = _where(again, fresh(), jacobian)
        with torch.no_grad():  # so that the residual on the graph counts once
            second = self._iterate(corrector, jacobian, size, torch.full_like(rate, torch.inf))
        joined = Root(
            z=_where(again, second.z, root.z),
            rate=_where(again, second.rate, root.rate),
            residuals=root.residuals + torch.where(again, second.residuals, 0),
        )
        return joined, jacobian

    def _iterate(
        self,
        corrector: _Corrector,
        jacobian: Tensor | JacobianProduct,
        size: Callable[[Tensor], Tensor],
        rate: Tensor,
    ) -> Root:
        with torch.no_grad():
            # A copy, not a view: what a compiled iteration reads may not share memory.
            system = self.linear_solver.prepare(jacobian, corrector.c.squeeze(-1).clone())
        return self.newton.iterate(corrector.residual, system.solve, torch.zeros_like(corrector.guess), size, rate)

    def _transposed(self, corrector: _Corrector, d: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the transposed solve with the exact Jacobian at the end of the step."""
        solver = self.linear_solver

        def solve_transposed(w: Tensor) -> Tensor:
            at = solver.linearise(corrector.f, corrector.t.detach(), (corrector.guess + d).detach(), rate=False)
            return solver.prepare(at.jacobian, corrector.c.squeeze(-1)).solve_transposed(w)

        return solve_transposed

    def _choose(
        self, updated: Tensor, d: Tensor, order: Tensor, equal: Tensor, norm: Callable[[Tensor], Tensor]
    ) -> _Choice:
        """Choose the order and the length of the next step."""
        n = order.unsqueeze(-1)

        def factor(change: int, difference: Tensor) -> Tensor:
            ratio = _lookup(ERROR, order + change, d) * norm(difference)
            return SAFETY * ratio.clamp(min=1e-10) ** (-1.0 / (order + change + 1))

        stay = factor(0, d)
        lower = torch.where(order > 1, factor(-1, _pick(updated, n)), 0.0)
        higher = torch.where(
            order < self.max_order, factor(1, _pick(updated, (n + 2).clamp(max=self.max_order + 1))), 0.0
        )
        factors = torch.stack([lower, stay, higher])
        best = factors.nan_to_num(nan=0.0).argmax(0)
        accepted = _lookup(ERROR, order, d) * norm(d) <= 1.0
        decides = accepted & (equal > order)
        proposal = torch.where(decides, factors.amax(0), torch.where(accepted, 1.0, stay))
        return _Choice(
            order=torch.where(decides, order + best - 1, order).to(d.dtype),
            equal=torch.where(decides, 0.0, equal),
            factor=proposal.clamp(LEAST, MOST),
        )


class _Choice(NamedTuple):
    """What is to follow: the order, how many steps of one length there were since the last choice, the factor."""

    order: Tensor
    equal: Tensor
    factor: Tensor


class _Past(NamedTuple):
    r"""What a step knows of those before.

    Args:
        differences: $\nabla^j y$ for j up to two more than the highest order, shape `(batch, differences, state)`.
        order: Order k, shape `(batch,)`, as the others; constants for the gradient.
        length: Length of the steps of the past.
        equal: How many of them there were since the last choice.
        rate: Rate of Newton's method in the last one.
    """

    differences: Tensor
    order: Tensor
    length: Tensor
    equal: Tensor
    rate: Tensor

    @classmethod
    def unpack(cls, carry: Carry, y: Tensor) -> _Past:
        differences, numbers, *_ = carry
        return cls(differences.unflatten(-1, (-1, y.shape[-1])), *numbers.detach().unbind(-1))

    def pack(self, jacobian: Tensor | JacobianProduct) -> Carry:
        """Return two or three tensors with two axes each, as the loop wants them."""
        numbers = torch.stack([self.order, self.length, self.equal, self.rate], -1)
        matrix = (jacobian.flatten(1),) if isinstance(jacobian, Tensor) else ()
        return (self.differences.flatten(1), numbers, *matrix)

    def rescaled(self, ratio: Tensor, y: Tensor) -> Tensor:
        r"""Return the differences on a grid that is longer by `ratio`, zero above the order, starting from y.

        They are $(R(\rho) R(1))^T$ times the old ones, $R_{ij}(\rho) = \prod_{m=1}^i (m - 1 - \rho j) / m$ (Shampine
        and Reichelt, section 2.2).
        """
        rows = self.differences.shape[1]
        kept = (torch.arange(rows, device=y.device) <= self.order.unsqueeze(-1)).unsqueeze(-1)
        change = torch.where(kept, _grid(ratio, rows), 0.0) @ _grid(torch.ones_like(ratio[:1]), rows)
        old = torch.where(kept, self.differences, 0.0)
        old = torch.cat([y.unsqueeze(1), old[:, 1:]], 1)
        return torch.where(kept, change.mT @ old, 0.0)


@dataclass(frozen=True, slots=True)
class _Corrector:
    r"""The equation $d + \psi = c f(t_1, \hat y_1 + d)$ for the correction of the guess.

    Args:
        f: Vector field.
        t: End of the step, shape `(batch,)`.
        guess: $\hat y_1$, shape `(batch, state)`.
        history: $\psi$, likewise.
        c: Shape `(batch, 1)`.
    """

    f: FlatField
    t: Tensor
    guess: Tensor
    history: Tensor
    c: Tensor

    def residual(self, d: Tensor) -> Tensor:
        return d + self.history - self.c * self.f(self.t, self.guess + d)


def _grid(ratio: Tensor, rows: int) -> Tensor:
    r"""Return $R_{ij}(\rho)$, shape `(batch, rows, rows)`."""
    index = torch.arange(rows, dtype=ratio.dtype, device=ratio.device)
    i, j = index[1:, None], index[None, :]
    factors = (i - 1.0 - ratio[:, None, None] * j) / i
    return torch.cat([torch.ones_like(factors[:, :1]), factors], 1).cumprod(1)


def _updated(differences: Tensor, d: Tensor, past: _Past) -> Tensor:
    """Return the differences at the end of the step, two more than the order, from the guess and its correction."""
    rows = torch.arange(differences.shape[1], device=d.device).unsqueeze(-1)
    top = past.order.long()[:, None, None] + 1
    known = differences + torch.where(rows == top, d.unsqueeze(1), 0.0)
    # The sum of a difference and all higher ones is the same difference one step later.
    later = known.flip(1).cumsum(1).flip(1)
    # Up to rounding, of use only if the step before had the same length and order; the choice waits for that.
    second = d.unsqueeze(1) - _pick(past.differences, top.squeeze(-1)).unsqueeze(1)
    return torch.where(rows == top + 1, second, later)


def _stages(differences: Tensor, order: Tensor, length: Tensor, max_order: int) -> tuple[Tensor, ...]:
    safe = torch.where(length == 0.0, 1.0, length).unsqueeze(-1)
    return tuple(
        torch.where((order >= j).unsqueeze(-1), differences[:, j] / safe, 0.0) for j in range(1, max_order + 1)
    )


def _ratio_norm(tolerances: Tolerances, y0: Tensor, y1: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the norm by which the loop accepts steps."""
    allowed = torch.addcmul(tolerances.atol, torch.maximum(y0.abs(), y1.abs()), tolerances.rtol)
    return lambda x: torch.linalg.vector_norm(x / allowed, dim=-1) * x.shape[-1] ** -0.5


def _where(mask: Tensor, new: Tensor | JacobianProduct, old: Tensor | JacobianProduct) -> Tensor:
    """Choose by sample."""
    assert isinstance(new, Tensor)
    assert isinstance(old, Tensor)
    return torch.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _lookup(table: tuple[float, ...], order: Tensor, like: Tensor) -> Tensor:
    return like.new_tensor(table)[order]


def _padded(table: tuple[float, ...], differences: Tensor) -> list[float]:
    rows = differences.shape[1]
    return [*table[:rows], *[0.0] * (rows - len(table))]


def _pick(rows: Tensor, index: Tensor) -> Tensor:
    """Return row `index` of each sample, for an index of shape `(batch, 1)`."""
    return rows.take_along_dim(index.unsqueeze(-1), 1).squeeze(1)
