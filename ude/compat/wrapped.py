"""Methods built around another one, each with one thing changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.compat.errors import ArgumentError
from ude.compat.norms import mixed_norm
from ude.compat.packing import PackedNorm
from ude.methods import Carry, Method, StepResult, Tolerances
from ude.methods.method import take_step

Norm = Callable[[Tensor], "Tensor | float"]
"""Size of a scaled error, given in the form of the state."""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A method that does what the one inside does."""

    method: Method

    def __str__(self) -> str:
        return str(self.method)

    @property
    def order(self) -> float:
        """Order of convergence."""
        return self.method.order

    @property
    def error_order(self) -> float | None:
        """The error estimate shrinks like `dt ** error_order`."""
        return self.method.error_order

    @property
    def evaluations(self) -> int:
        """Evaluations of the vector field in one step."""
        return self.method.evaluations

    @property
    def init_evaluations(self) -> int:
        """Evaluations of the vector field in `init`."""
        return self.method.init_evaluations

    @property
    def dense_evaluations(self) -> int:
        """Extra evaluations made by `dense_stages`."""
        return self.method.dense_evaluations

    def init(self, f: FlatField, t: Tensor, y: Tensor) -> Carry:
        """Return the carry for the first step."""
        return self.method.init(f, t, y)

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`."""
        return self.step_within(f, t, dt, y, carry, Tolerances.tight(y))

    def step_within(
        self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry, tolerances: Tolerances
    ) -> StepResult:
        """Take one step, with the tolerances for a method that iterates."""
        return take_step(self.method, f, t, dt, y, carry, tolerances)

    def dense_stages(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, step: StepResult) -> tuple[Tensor, ...]:
        """Return the stages that `dense_weights` refers to."""
        return self.method.dense_stages(f, t, dt, y, step)

    def dense_weights(self, theta: Tensor) -> Tensor:
        """Weights of the continuous extension."""
        return self.method.dense_weights(theta)


@dataclass(frozen=True, slots=True)
class Normed(Wrapped):
    r"""A method whose error is measured by a norm of the user's instead of the root mean square.

    With the scale $s_i = a_i + r_i \max(|y_{0,i}|, |y_{1,i}|)$ of the error $e$, the loop computes the root mean square
    of $e_i / s_i$. Replaced by $\nu s$ with $\nu = \|e / s\|$ in the user's norm: the loop then sees $\nu$.

    Args:
        norm: Called with the scaled error in the shape of the state.
        shape: That shape.
        rtol: Relative tolerance: a number, or a tensor that broadcasts to `shape`.
        atol: Absolute tolerance, likewise.
    """

    norm: Norm
    shape: torch.Size
    rtol: float | Tensor
    atol: float | Tensor

    def step_within(
        self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry, tolerances: Tolerances
    ) -> StepResult:
        """Take one step from `t` to `t + dt`."""
        result = take_step(self.method, f, t, dt, y, carry, tolerances)
        if result.factor is not None:
            # It has chosen order and step by the root mean square already, which serves for a tuple as well.
            if isinstance(self.norm, PackedNorm) and self.norm.norm is mixed_norm:
                return result
            raise ArgumentError(f"{self.method} measures its error itself: leave the option 'norm' out.")
        assert result.error is not None
        size = torch.maximum(y.abs(), result.y1.abs()).reshape(self.shape)
        scale = (self.atol + self.rtol * size).to(size.dtype).clamp(min=torch.finfo(size.dtype).tiny)
        ratio = torch.as_tensor(self.norm(result.error.reshape(self.shape) / scale)).abs().to(size)
        return result._replace(error=(ratio * scale).reshape(y.shape).to(y.dtype))
