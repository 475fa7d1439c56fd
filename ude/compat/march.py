"""The engine for steps whose lengths are known: nothing is decided on the way."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ude.methods import Tolerances
from ude.methods.method import take_step
from ude.problems import Status
from ude.solve import Eager
from ude.solve.engines import Task
from ude.solve.step import RUNNING, Attempt, Point
from ude.solve.trace import SingleAttempts, Trace


@dataclass(frozen=True, slots=True)
class March(Eager):
    """Takes steps of length 1 and looks only at the end whether all of them were finite.

    What a trial step is asked, if it is accepted, if it is the last, if it failed, costs several times as much as a
    step of Euler's method on a small state. Where something was not finite, or events are looked for, the steps are
    made one by one as `Eager` makes them.
    """

    def advance(self, task: Task, point: Point, attempts: int) -> tuple[Point, Trace]:
        """Run up to `attempts` steps."""
        if task.handler is not None:
            return Eager.advance(self, task, point, attempts)
        end = task.limits.stops[-1]
        count = min(attempts, int((end - point.t.detach()).max()))
        t = point.t.detach() + torch.arange(count, dtype=end.dtype, device=end.device).unsqueeze(-1)
        one, y, carry = torch.ones_like(t), point.y, point.carry
        none = torch.zeros_like(t)
        done = torch.ones_like(t, dtype=torch.bool)
        columns = [x.unbind() for x in (t, one, t + one, none, done)]
        records, tolerances = [], Tolerances(task.limits.rtol, task.limits.atol)
        for start, length, after, zero, true in zip(*columns, strict=True):
            result = take_step(task.method, task.field, start, length, y, carry, tolerances)
            records.append(Attempt(start, length, after, y, result.y1, result.stages, zero, zero, true, true, true))
            y, carry = result.y1, result.carry
        if not bool(y.detach().isfinite().all()):
            return Eager.advance(self, task, point, attempts)
        arrived = (t[-1] + 1 == end) & (point.status == RUNNING)
        status = torch.where(arrived, int(Status.SUCCESS), point.status)
        following = point._replace(t=t[-1] + 1, y=y, carry=carry, status=status, stop=point.stop + arrived)
        trace = Trace(
            t=t,
            dt=one,
            t1=t + one,
            error=none,
            stiffness=none,
            active=done,
            accepted=done,
            store=SingleAttempts(tuple(records)),
        )
        return following, trace
