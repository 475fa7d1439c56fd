"""The contract between a method and the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from ude._typing import FlatField

Carry: TypeAlias = tuple[Tensor, ...]
"""What a method hands from an accepted step to the next one, such as the last stage (first same as last)."""


class StepResult(NamedTuple):
    """One trial step; all tensors are on the autograd graph.

    Args:
        y1: State at the end of the step, shape `(batch, state)`.
        error: Estimate of the local error of `y1`, same shape; None if the method has none.
        stiffness: Estimate of the spectral radius of the Jacobian, shape `(batch,)`; None if the method has none.
        stages: The stage derivatives, each of shape `(batch, state)`, from which dense output is made.
        carry: For the next step, if this one is accepted.
        factor: Length of the next trial step over that of this one, shape `(batch,)`, detached, from methods that know
            better than the controller; below 1 where the error is too large. None, or NaN for some samples, to leave it
            to the controller.
        evaluations: Of the vector field, as many as each sample needed, integers of shape `(batch,)`; None if they are
            always as many as `Method.evaluations` says.
    """

    y1: Tensor
    error: Tensor | None
    stiffness: Tensor | None
    stages: tuple[Tensor, ...]
    carry: Carry
    factor: Tensor | None = None
    evaluations: Tensor | None = None


class Tolerances(NamedTuple):
    """The error of a state that the solve allows, `atol + rtol * |y|` in each component.

    Args:
        rtol: Relative tolerance, shape `()` or `(batch, state)`.
        atol: Absolute tolerance, likewise or `(batch, 1)`.
    """

    rtol: Tensor
    atol: Tensor

    @classmethod
    def tight(cls, y: Tensor) -> Tolerances:
        """Return tolerances some digits above rounding: 1e5 units of it, relative to the largest component."""
        rtol = y.new_tensor(1e5 * torch.finfo(y.dtype).eps)
        return cls(rtol, rtol * y.detach().abs().amax(-1, keepdim=True) + torch.finfo(y.dtype).tiny)

    def norm(self, y: Tensor, factor: Tensor) -> Callable[[Tensor], Tensor]:
        r"""Return $x \mapsto \sqrt{\operatorname{mean}_i |s\, x_i / (a_i + r_i |y_i|)|^2}$, per sample, a constant.

        Tolerances below the resolution of the state count as 1e3 units of rounding.

        Args:
            y: State, shape `(batch, state)`.
            factor: $s$, shape `(batch, 1)`.
        """
        size = y.detach().abs()
        allowed = torch.addcmul(self.atol, size, self.rtol.clamp(min=1e3 * torch.finfo(y.dtype).eps))
        weight = factor.detach() / allowed * y.shape[-1] ** -0.5
        return lambda x: torch.linalg.vector_norm(x * weight, dim=-1)


@runtime_checkable
class Method(Protocol):
    """One step of a solver: a frozen value, no loop, no state, no branch on data.

    A step is a pure function of tensors: no `.item()`, nothing in place, so that it can be differentiated,
    compiled and batched. Coefficients are Python floats.
    """

    @property
    def order(self) -> float:
        """Order of convergence of `y1`; of single paths for stochastic methods, unless they say otherwise."""
        ...

    @property
    def error_order(self) -> float | None:
        """The error estimate shrinks like `dt ** error_order`; None for a method without an estimate."""
        ...

    @property
    def evaluations(self) -> int:
        """Evaluations of the vector field in one step, not counting what the carry saves.

        Their number if the step itself does not say how many there were, else what is usual.
        """
        ...

    def init(self, f: FlatField, t: Tensor, y: Tensor) -> Carry:
        """Return the carry for the first step; `init_evaluations` evaluations."""
        ...

    @property
    def init_evaluations(self) -> int:
        """Evaluations of the vector field in `init`; with one, it is that at the point that `init` is given."""
        ...

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`; `t` and `dt` have shape `(batch,)`, `y` `(batch, state)`."""
        ...

    def dense_stages(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, step: StepResult) -> tuple[Tensor, ...]:
        """Return the stages that `dense_weights` refers to, evaluating extra ones where the method needs them."""
        ...

    @property
    def dense_evaluations(self) -> int:
        """Extra evaluations made by `dense_stages`."""
        ...

    def dense_weights(self, theta: Tensor) -> Tensor:
        r"""Weights $b_i(\theta)$ of the continuous extension, shape `(stages, *theta.shape)`.

        The state at `t + theta * dt` is $y + dt \sum_i b_i(\theta) k_i$ for $0 \le \theta \le 1$.
        """
        ...


@runtime_checkable
class SwitchingMethod(Protocol):
    """A method whose steps are not all of one kind."""

    def extra_evaluations(self, stages: Sequence[Tensor]) -> Tensor:
        """Return how many evaluations `dense_stages` makes for a step with these stages, shape `(batch,)`."""
        ...


@runtime_checkable
class IteratingMethod(Protocol):
    """A method that finds its steps by iteration, as exactly as the solve needs them."""

    def step_within(
        self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry, tolerances: Tolerances
    ) -> StepResult:
        """Take one step as `Method.step` does, with an error of the iteration well below the tolerances."""
        ...


def take_step(
    method: Method, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry, tolerances: Tolerances
) -> StepResult:
    """Take one step of any method; one that iterates is told the tolerances."""
    if isinstance(method, IteratingMethod):
        return method.step_within(f, t, dt, y, carry, tolerances)
    return method.step(f, t, dt, y, carry)


def extra_evaluations(method: Method, stages: Sequence[Tensor]) -> Tensor | int:
    """Return how many evaluations `Method.dense_stages` makes, per sample where that differs.

    Args:
        method: Made the step.
        stages: Of the step, each of shape `(*rows, batch, state)`.

    Returns:
        A number, or shape `(*rows, batch)`.
    """
    return method.extra_evaluations(stages) if isinstance(method, SwitchingMethod) else method.dense_evaluations
