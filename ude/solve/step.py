"""One trial step and what becomes of it: a pure function of tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.methods.method import Carry, Method, StepResult, Tolerances, take_step
from ude.problems.solution import Status
from ude.solve.controllers import Controller, Decision, Memory

RUNNING = -1
"""Status of a sample that has not come to its end."""
NOT_BEGUN = -2
"""Status of one whose first point the engine is still to make."""


class Limits(NamedTuple):
    """What stays the same from step to step; tensors, so that new values need no new compilation.

    Args:
        stops: Times at which steps must end, in the direction of time, shape `(stops, batch)`; the last ones are the
            ends of the interval.
        before: Where the last stage of such a step is taken, same shape.
        floor: A step that must become shorter than this, or than the resolution of `t`, fails; shape `(batch,)`.
        rtol: Relative tolerance, shape `()` or `(batch, state)`.
        atol: Absolute tolerance, likewise; positive.
        shortest: No step is made shorter for its error, shape `()`.
        longest: No step is longer, shape `()`.
    """

    stops: Tensor
    before: Tensor
    floor: Tensor
    rtol: Tensor
    atol: Tensor
    shortest: Tensor
    longest: Tensor


class Point(NamedTuple):
    """Where the integration stands.

    Args:
        t: Time, shape `(batch,)`; on the autograd graph only through the start time.
        dt: Signed length of the next trial step, shape `(batch,)`; detached.
        y: State, shape `(batch, state)`.
        carry: What the method hands from step to step.
        memory: What the controller remembers; detached.
        status: `RUNNING` or a `Status`, shape `(batch,)`.
        stop: Number of the next stop, shape `(batch,)`.
        watch: What events remember; detached.
    """

    t: Tensor
    dt: Tensor
    y: Tensor
    carry: Carry
    memory: Memory
    status: Tensor
    stop: Tensor
    watch: Memory = ()


class Attempt(NamedTuple):
    """What is kept of one trial step, for dense output, `Steps` and `Stats`.

    `t`, `dt`, `t1`, `error`, `stiffness`, `active`, `accepted`, `finite` and `evaluations` have shape `(batch,)`,
    `y0`, `y1` and every stage `(batch, state)`.

    Args:
        t: Start of the step.
        dt: Its signed length; zero for a sample that had finished.
        t1: Time afterwards: the end of the step if it was accepted, else its start.
        y0: State at the start.
        y1: State at the end of the step, accepted or not.
        stages: Stage derivatives.
        error: Error ratio, infinite where something was not finite.
        stiffness: Stiffness estimate.
        active: The sample was still running.
        accepted: The step was taken.
        finite: No number of an active step was infinite or NaN.
        evaluations: Of the vector field, as many as each sample needed for the attempt and for the events after it:
            one tensor, or none if every active sample needed `Method.evaluations`.
    """

    t: Tensor
    dt: Tensor
    t1: Tensor
    y0: Tensor
    y1: Tensor
    stages: tuple[Tensor, ...]
    error: Tensor
    stiffness: Tensor
    active: Tensor
    accepted: Tensor
    finite: Tensor
    evaluations: tuple[Tensor, ...] = ()


def attempt(
    field: FlatField,
    method: Method,
    controller: Controller,
    limits: Limits,
    point: Point,
    blocked: Tensor | None = None,
) -> tuple[Point, Attempt]:
    """Try one step of every running sample; the others stand still with a step of zero.

    Args:
        field: Vector field.
        method: Makes the step.
        controller: Decides on it.
        limits: End of the interval and tolerances.
        point: Where the integration stands.
        blocked: Samples known to meet a number that is not finite in this step. They stand still and shrink
            their step as they would have done, so that no infinite derivative enters the backward pass.

    Returns:
        The next point, and the record of the attempt.
    """
    active = point.status == RUNNING
    remaining = _target(limits.before, point.stop) - point.t.detach()
    # A last step up to 1 % longer avoids one of a length near rounding error (Hairer's DOPRI5 does the same).
    arrives = remaining.abs() <= 1.01 * point.dt.abs()
    tried = torch.where(arrives, remaining, point.dt)
    dt = torch.where(active if blocked is None else active & ~blocked, tried, 0.0)
    result = take_step(method, field, point.t, dt, point.y, point.carry, Tolerances(limits.rtol, limits.atol))
    error, finite = _quality(result, point, limits, blocked)
    decision = _decide(controller, method, point.memory, result, error.detach(), finite)
    accepted = active & decision.accept
    # A last step may be 1 % longer than the shortest; tried again it would be as long as before, for ever.
    is_shortest = tried.abs() <= 1.01 * limits.shortest
    if controller.accepts_shortest:
        accepted = accepted | (active & finite & is_shortest)
    arrived = accepted & arrives
    target = _target(limits.stops, point.stop)
    t = torch.where(accepted, torch.where(arrives, target, point.t + dt), point.t)
    next_dt = torch.where(active, tried * decision.factor, point.dt) if controller.needs_error else point.dt
    next_dt = _bounded(next_dt, limits, point.dt, arrived)
    # A step below the resolution of the time, or a rejected one that cannot shrink, is the end of its sample.
    floor = torch.maximum(limits.floor, 10 * torch.finfo(dt.dtype).eps * point.t.detach().abs())
    cannot_shrink = (decision.factor >= 1.0) | is_shortest
    stuck = (next_dt.abs() <= floor) | (~accepted & cannot_shrink)
    failure = torch.where(finite, int(Status.STEP_TOO_SMALL), int(Status.NON_FINITE))
    status = torch.where(active & stuck & ~arrived, failure, point.status)
    status = torch.where(arrived & (target == limits.stops[-1]), int(Status.SUCCESS), status)
    taken = accepted.unsqueeze(-1)
    following = Point(
        t=t,
        dt=next_dt,
        y=torch.where(taken, result.y1, point.y),
        carry=tuple(torch.where(taken, new, old) for new, old in zip(result.carry, point.carry, strict=True)),
        memory=decision.memory,
        status=status,
        stop=point.stop + arrived,
        watch=point.watch,
    )
    return following, _record(point, dt, t, result, error, active, accepted, finite)


def evaluations_of(method: Method, record: Attempt) -> Tensor:
    """Return how many evaluations an attempt took each sample, shape `(batch,)`."""
    return record.evaluations[0] if record.evaluations else record.active * method.evaluations


def with_more(method: Method, record: Attempt, evaluations: Tensor | int) -> Attempt:
    """Add evaluations, shape `(batch,)`, to those of an attempt."""
    return record._replace(evaluations=(evaluations_of(method, record) + evaluations,))


def _quality(result: StepResult, point: Point, limits: Limits, blocked: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the error ratio of a step, and where all of its numbers are finite."""
    error = torch.zeros_like(point.dt)
    if result.error is not None:
        error = error_ratio(result.error, point.y, result.y1, limits)
    # Zero times anything but a finite number is NaN.
    finite = (error.detach() + (0.0 * result.y1.detach()).abs().sum(-1)).isfinite()
    return error, finite if blocked is None else finite & ~blocked


def _decide(
    controller: Controller, method: Method, memory: Memory, result: StepResult, error: Tensor, finite: Tensor
) -> Decision:
    """Ask the controller, and for the length of the next step the method, if it knows better."""
    decision = controller.decide(error, finite, memory, method.error_order)
    if result.factor is None:
        return decision
    knows = finite & ~result.factor.isnan()
    return decision._replace(factor=torch.where(knows, result.factor, decision.factor))


def _record(
    point: Point,
    dt: Tensor,
    t1: Tensor,
    result: StepResult,
    error: Tensor,
    active: Tensor,
    accepted: Tensor,
    finite: Tensor,
) -> Attempt:
    """Return what is kept of a step from a point."""
    return Attempt(
        t=point.t,
        dt=dt,
        t1=t1,
        y0=point.y,
        y1=result.y1,
        stages=result.stages,
        error=torch.where(finite, error, torch.where(active, torch.inf, 0.0)),
        stiffness=torch.zeros_like(dt) if result.stiffness is None else torch.where(finite, result.stiffness, 0.0),
        active=active,
        accepted=accepted,
        finite=finite | ~active,
        evaluations=() if result.evaluations is None else (torch.where(active, result.evaluations, 0),),
    )


def _target(stops: Tensor, number: Tensor) -> Tensor:
    """Return the next stop of every sample, the last one again where it has been reached."""
    if len(stops) == 1:
        return stops[0]
    return stops.gather(0, number.clamp(max=len(stops) - 1).unsqueeze(0)).squeeze(0)


def _bounded(proposed: Tensor, limits: Limits, before: Tensor, arrived: Tensor) -> Tensor:
    """Return the length of the next step within the limits; a stop that cut a step short does not shorten the next."""
    if len(limits.stops) > 1:
        proposed = torch.where(arrived & (proposed.abs() < before.abs()), before, proposed)
    return torch.copysign(torch.minimum(proposed.abs().clamp(min=limits.shortest), limits.longest), proposed)


def error_ratio(error: Tensor, y0: Tensor, y1: Tensor, limits: Limits | Tolerances) -> Tensor:
    r"""Return $\sqrt{\operatorname{mean}_i\, |e_i / (a_i + r_i \max(|y_{0,i}|, |y_{1,i}|))|^2}$ per sample.

    Its gradient is zero, not NaN, where the error vanishes.
    """
    scale = torch.addcmul(limits.atol, torch.maximum(y0.abs(), y1.abs()), limits.rtol)
    scaled = error / scale
    square = (scaled.abs() if scaled.is_complex() else scaled).square().mean(-1)
    # NaN compares as different from zero and goes on as NaN.
    usable = square != 0.0
    return torch.where(usable, torch.where(usable, square, 1.0).sqrt(), 0.0)
