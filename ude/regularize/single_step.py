"""One step of a method, repeated by itself: what a solver that records nothing cannot say of its steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.methods.method import Method, StepResult, Tolerances, take_step
from ude.solve.step import error_ratio


class SingleStep(NamedTuple):
    """A step from `(t, y)`, all numbers of shape `(batch,)`.

    Args:
        dt: Its length; a constant of the gradient.
        error: Error ratio, as in `Steps`.
        raw_error: Root mean square of the estimated error.
        stiffness: Stiffness estimate.
    """

    dt: Tensor
    error: Tensor
    raw_error: Tensor
    stiffness: Tensor


def repeat_step(
    f: FlatField, method: Method, tolerances: Tolerances, t: Tensor, dt: Tensor, y: Tensor
) -> tuple[SingleStep, StepResult]:
    """Take one step that a solver has taken, on the autograd graph.

    Args:
        f: Vector field.
        method: Makes the step.
        tolerances: Those of the solve.
        t: Its start, shape `(batch,)`.
        dt: Its length, likewise.
        y: State there, shape `(batch, state)`.
    """
    result = take_step(method, f, t, dt, y, method.init(f, t, y), tolerances)
    nothing = torch.zeros_like(dt)
    error = raw = nothing
    if result.error is not None:
        error = error_ratio(result.error, y, result.y1, tolerances)
        raw = error_ratio(result.error, y, result.y1, Tolerances(nothing.new_zeros(()), nothing.new_ones(())))
    stiffness = nothing if result.stiffness is None else result.stiffness
    return SingleStep(dt.detach(), error, raw, stiffness), result
