"""Steps by the Taylor series of the solution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.ad import ode_series
from ude.methods.method import Carry, StepResult


@dataclass(frozen=True, slots=True)
class Taylor:
    r"""The Taylor method, $y_1 = \sum_{k=0}^{p} c_k\, \Delta t^k$ with $c_k = y^{(k)} / k!$ of the solution.

    Order p, at the cost of p passes through the vector field, $O(p^2)$ products for each function in it, and one more
    evaluation at the end of the step. The error estimate is, number by number, the larger of

    - the last term, $c_p\, \Delta t^p$: the leading error of the method of order p - 1, as in embedded pairs that go on
      with the better solution;
    - $\Delta t\, (f(t_1, y_1) - \dot y_p(t_1))$, the defect of the polynomial $y_p$ at the end of the step. It is
      $(p + 1)\, c_{p+1}\, \Delta t^{p+1}$ for smooth fields, below the last term unless the series converges slowly.
      All coefficients come from one point; this tells of a kink or a jump of the field that the step went over.

    The series itself is the dense output, of order p and free. The field should be smooth: across a kink or a jump the
    method falls back to short steps of low order, and a piece that begins and ends within one step stays unseen, as
    between the stages of any method.

    The stages are $k_i = c_i\, \Delta t^{i-1}$; `derivatives` turns them into all derivatives at the start of the step,
    so that the regularizers $R_1, \dots, R_p$ cost nothing beyond the step.

    The vector field must consist of functions with a rule in `ude.ad`.

    Args:
        order: The order $p \geq 1$; 1 is Euler's method. High orders pay for tight tolerances.

    Raises:
        ValueError: If the order is no integer or less than 1.

    Example:
        >>> method = Taylor(3)
        >>> t, dt, y = torch.zeros(1), torch.ones(1), torch.ones(1, 1)
        >>> method.step(lambda t, y: y, t, dt, y, ()).y1
        tensor([[2.6667]])

    Reference:
        Hairer, Norsett & Wanner (1993), Solving Ordinary Differential Equations I, section I.8.
        Jorba & Zou (2005), A software package for the numerical integration of ODEs by means of high-order Taylor
        methods, Experiment. Math. 14, 99-117.
    """

    order: int

    def __post_init__(self) -> None:
        if not isinstance(self.order, int) or isinstance(self.order, bool) or self.order < 1:
            raise ValueError(f"`order` must be an integer of at least 1, got {self.order!r}.")

    def __str__(self) -> str:
        return f"Taylor({self.order})"

    @property
    def error_order(self) -> int:
        """The error estimate shrinks like `dt ** error_order`."""
        return self.order

    @property
    def dense_order(self) -> int:
        """Order of the continuous extension: its local error is like `dt ** (dense_order + 1)`."""
        return self.order

    @property
    def evaluations(self) -> int:
        """Passes through the vector field in one step: p for the series, one for its defect at the end."""
        return self.order + 1

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
            f: Vector field, called as `f(t, y)`: once at the start, recorded for the series, and once at the end.
            t: Start of the step, shape `(batch,)`.
            dt: Signed length of the step, shape `(batch,)`.
            y: State at `t`, shape `(batch, state)`.
            carry: Nothing.

        Returns:
            The new state, the error estimate and the stages.
        """
        length = dt.to(y.dtype).unsqueeze(-1)
        _, *coefficients = ode_series(f, t, y, self.order).unbind(0)
        power, stages = torch.ones_like(length), []
        for coefficient in coefficients:
            stages.append(coefficient * power)
            power = power * length
        # The derivative of the polynomial at the end and its mean over the step; the smallest terms first.
        end, mean = self.order * stages[-1], stages[-1]
        for k in range(self.order - 1, 0, -1):
            end, mean = torch.add(end, stages[k - 1], alpha=k), mean + stages[k - 1]
        y1 = torch.addcmul(y, length, mean)
        last, defect = stages[-1], f(t + dt, y1) - end
        return StepResult(
            y1=y1,
            # Where the last term is NaN the defect is too, and the comparison chooses the defect.
            error=length * torch.where(last.abs() >= defect.abs(), last, defect),
            stiffness=None,
            stages=tuple(stages),
            carry=(),
        )

    def dense_stages(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, step: StepResult) -> tuple[Tensor, ...]:
        """Return the stages that `dense_weights` refers to: those of the step."""
        return step.stages

    def dense_weights(self, theta: Tensor) -> Tensor:
        r"""Weights $b_i(\theta) = \theta^i$ of the continuous extension, shape `(stages, *theta.shape)`.

        Args:
            theta: Fraction of the step, between 0 and 1; real, any shape.
        """
        return torch.cumprod(theta.expand(self.order, *theta.shape), dim=0)

    def derivatives(self, stages: Sequence[Tensor], dt: Tensor) -> tuple[Tensor, ...]:
        r"""Return the derivatives $y^{(1)}, \dots, y^{(p)}$ at the start of a step, from its stages.

        Args:
            stages: Of the step, each of shape `(batch, state)`.
            dt: Length of the step, shape `(batch,)`; not zero.

        Returns:
            One tensor of shape `(batch, state)` for each order.
        """
        length = dt.to(stages[0].dtype).unsqueeze(-1)
        return tuple(stage * (math.factorial(i) / length ** (i - 1)) for i, stage in enumerate(stages, 1))
