"""Constant steps: where each of them begins and ends is known before the first, and nothing is decided on the way."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ude.methods.method import Tolerances, take_step
from ude.problems import Status
from ude.solve.controllers import Controller, FixedStep
from ude.solve.step import RUNNING, Attempt, Limits, Point, error_ratio, evaluations_of
from ude.solve.trace import Trace

if TYPE_CHECKING:
    from ude.solve.engines import Task

FORMATS = {torch.float32: np.float32, torch.float64: np.float64}
"""Formats of time in which a timetable adds up the steps as the tensors would."""


class Timetable(NamedTuple):
    """The steps ahead, of shape `(steps, batch)`.

    Args:
        t: Start of each step.
        dt: Its signed length.
        t1: Its end.
        arrivals: How many stops are reached.
    """

    t: Tensor
    dt: Tensor
    t1: Tensor
    arrivals: int


def march(task: Task, point: Point, attempts: int) -> tuple[Point, Trace] | Tensor | None:
    """Make up to `attempts` constant steps and look only at the end whether all of them were finite.

    What a trial step is asked, if it is accepted, if it is the last, if it failed, costs several times as much as a
    step of Euler's method on a small state. Values and records are those of `attempt` bit for bit, gradients up to the
    order in which they are added.

    Args:
        task: The solve.
        point: Where it stands.
        attempts: Most steps, at least one.

    Returns:
        The point reached and the steps; None where they must be made one by one: steps of other lengths, events,
        samples that do not go together, a start time with a gradient. Where something was not finite they must be made
        so as well: then the evaluations made in vain, shape `(batch,)`, for the samples to blame.
    """
    if task.handler is not None or not isinstance(task.controller, FixedStep):
        return None
    ahead = _timetable(task.limits, point, attempts)
    if ahead is None:
        return None
    tolerances = Tolerances(task.limits.rtol, task.limits.atol)
    nothing, always = torch.zeros_like(point.dt), torch.ones_like(point.dt, dtype=torch.bool)
    y, carry, records = point.y, point.carry, []
    for t, dt, t1 in zip(ahead.t.unbind(), ahead.dt.unbind(), ahead.t1.unbind(), strict=True):
        try:
            result = take_step(task.method, task.field, t, dt, y, carry, tolerances)
        except Exception:
            if _is_finite(y):
                raise
            # One by one, the vector field would not have been asked for its value at NaN, which it was once.
            return (_evaluations(task, records) + 1) * ~_finite(y)
        error = nothing if result.error is None else error_ratio(result.error, y, result.y1, task.limits)
        stiffness = nothing if result.stiffness is None else result.stiffness
        evaluations = () if result.evaluations is None else (result.evaluations,)
        numbers = (error, stiffness, always, always, always, evaluations)
        records.append(Attempt(t, dt, t1, y, result.y1, result.stages, *numbers))
        y, carry = result.y1, result.carry
        if task.report is not None:
            task.report(t1)
    trace = Trace.of(records, task.method)
    if not (_is_finite(y) and _is_finite(trace.error) and _is_finite(trace.stiffness)):
        finite = _finite(y) & _finite(trace.error.T) & _finite(trace.stiffness.T)
        return _evaluations(task, records) * ~finite
    over = int(point.stop[0]) + ahead.arrivals == len(task.limits.stops)
    status = torch.full_like(point.status, int(Status.SUCCESS) if over else RUNNING)
    return point._replace(t=ahead.t1[-1], y=y, carry=carry, status=status, stop=point.stop + ahead.arrivals), trace


def _timetable(limits: Limits, point: Point, attempts: int) -> Timetable | None:
    """Return the steps of samples that all go together as `attempt` would measure them, None if there are none."""
    if point.t.requires_grad or point.t.dtype not in FORMATS or not _together(limits, point):
        return None
    number = FORMATS[point.t.dtype]
    t, dt = number(point.t[0].item()), number(point.dt[0].item())
    rows, arrivals = _rows(limits, t, dt, int(point.stop[0]), attempts)
    resolution = 10 * np.finfo(number).eps * max(abs(rows[0][0]), abs(t))
    if abs(dt) <= max(limits.floor[0].item(), resolution):
        return None
    columns = torch.from_numpy(np.array(rows)).to(point.t.device).unsqueeze(-1).expand(-1, -1, len(point.t))
    return Timetable(columns[:, 0], columns[:, 1], columns[:, 2], arrivals)


def timetable(limits: Limits, controller: Controller, t0: Tensor, first: Tensor) -> list[float] | None:
    """Return the ends of all constant steps from `t0` of length `first`, None where samples do not go together.

    Args:
        limits: Stops and bounds.
        controller: Decides on steps.
        t0: Start, shape `(batch,)`.
        first: Length of the steps, positive, likewise.
    """
    parts = (t0, first, *limits.stops, *limits.before)
    if not isinstance(controller, FixedStep) or t0.dtype not in FORMATS:
        return None
    if len(t0) > 1 and not all(bool((part == part[0]).all()) for part in parts):
        return None
    number = FORMATS[t0.dtype]
    length = torch.minimum(first.clamp(min=limits.shortest), limits.longest)
    start = number(t0[0].item())
    rows, _ = _rows(limits, start, number(length[0].item()), 0, sys.maxsize)
    return [float(start), *(float(end) for _, _, end in rows)]


def _rows(limits: Limits, t: Any, dt: Any, first: int, attempts: int) -> tuple[list[tuple[Any, Any, Any]], int]:
    """Return start, length and end of each step from a time on, and how many stops are reached."""
    number = type(t)
    reach = number(1.01) * abs(dt)
    rows, arrivals = [], 0
    for stop, before in zip(limits.stops[first:, 0].tolist(), limits.before[first:, 0].tolist(), strict=True):
        arrives = False
        while not arrives and len(rows) < attempts:
            remaining = number(before) - t
            arrives = bool(abs(remaining) <= reach)
            end = number(stop) if arrives else t + dt
            rows.append((t, remaining if arrives else dt, end))
            t = end
        arrivals += arrives
    return rows, arrivals


def _together(limits: Limits, point: Point) -> bool:
    """Return whether all samples are running, from the same time with the same step to the same stops."""
    same = (point.status == RUNNING).all()
    if len(point.t) > 1:
        for rows in (point.t, point.dt, point.stop, limits.floor, limits.stops, limits.before):
            same = same & (rows == rows[..., :1]).all()
    return bool(same)


def _evaluations(task: Task, records: Sequence[Attempt]) -> Tensor:
    """Return how many evaluations these steps took each sample, shape `(batch,)`."""
    counts = [evaluations_of(task.method, record) for record in records]
    return sum(counts, torch.zeros_like(task.limits.floor, dtype=torch.int64))


def _is_finite(x: Tensor) -> bool:
    return bool(_finite(x).all())


def _finite(x: Tensor) -> Tensor:
    """Return which rows are finite."""
    return x.detach().isfinite().all(-1)
