"""The point before the first step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ude import ad
from ude._typing import FlatField
from ude.methods.method import IteratingMethod, Method
from ude.problems import Status
from ude.solve.controllers import Controller
from ude.solve.initial_step import initial_step
from ude.solve.step import RUNNING, Limits, Point


def start(
    field: FlatField, method: Method, controller: Controller, limits: Limits, t: Tensor, y: Tensor, first: Tensor | None
) -> Point:
    """Return the point before the first step: a pure function of tensors.

    Args:
        field: Vector field.
        method: Makes steps.
        controller: Decides on them.
        limits: Ends of the interval and tolerances.
        t: Start, shape `(batch,)`.
        y: State there, shape `(batch, state)`.
        first: Positive length of the first step, shape `(batch,)`; None to choose one.
    """
    span = limits.stops[-1] - t.detach()
    f0 = field(t, y) if first is None or method.init_evaluations == 1 else None
    if method.init_evaluations == 1:
        assert f0 is not None
        carry = method.init(_known(field, method, t, y, f0), t, y)
    else:
        carry = method.init(field, t, y)
    if first is None:
        assert f0 is not None
        assert method.error_order is not None
        first = initial_step(field, t.detach(), y, f0, span, limits, method.error_order)
    first = torch.minimum(first.clamp(min=limits.shortest), limits.longest)
    sound = y.detach().isfinite().all(-1) & first.isfinite()
    status = torch.where(sound, RUNNING, int(Status.NON_FINITE))
    status = torch.where(sound & (span == 0), int(Status.SUCCESS), status)
    dt = torch.copysign(torch.where(sound, first, 0.0), span)
    memory = controller.init(torch.ones_like(span))
    return Point(t=t, dt=dt, y=y, carry=carry, memory=memory, status=status, stop=torch.zeros_like(status))


def start_evaluations(method: Method, *, chooses: bool | Tensor) -> int | Tensor:
    """Return how often `start` evaluates the vector field, as a number or of shape `(batch,)`, like `chooses`.

    Args:
        method: Makes steps.
        chooses: It is to find the length of the first step.
    """
    shared = method.init_evaluations == 1
    return method.init_evaluations + (2 - shared) * chooses


def _known(field: FlatField, method: Method, t: Tensor, y: Tensor, value: Tensor) -> FlatField:
    """Return the field with its value at a point known; a method that iterates may ask for its Jacobian as well."""
    if not isinstance(method, IteratingMethod):
        return lambda time, state: value
    known = _Known(field, t, y, value)
    return _KnownWithJacobian(field, t, y, value) if isinstance(field, ad.Linearisable) else known


@dataclass(frozen=True, slots=True)
class _Known:
    """A vector field whose value at one point is known.

    Args:
        field: The vector field.
        t: Time of the point.
        y: State there.
        value: The value there.
    """

    field: FlatField
    t: Tensor
    y: Tensor
    value: Tensor

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the value."""
        return self.value if t is self.t and y is self.y else self.field(t, y)


@dataclass(frozen=True, slots=True)
class _KnownWithJacobian(_Known):
    """One that knows its Jacobian as well."""

    def linearise(self, t: Tensor, y: Tensor, *, rate: bool) -> ad.Linearisation:
        """Return what the field does."""
        return ad.linearise(self.field, t, y, rate=rate)
