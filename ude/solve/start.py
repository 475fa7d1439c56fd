"""The point before the first step."""

from __future__ import annotations

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.methods.method import Method
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
        carry = method.init(lambda t, y: f0, t, y)  # pyright: ignore[reportArgumentType]
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


def start_evaluations(method: Method, *, chooses: bool) -> int:
    """Return how often `start` evaluates the vector field; `chooses` if it is to find the length of the first step."""
    shared = chooses and method.init_evaluations == 1
    return method.init_evaluations + 2 * chooses - shared
