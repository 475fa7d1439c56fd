"""How attempts are run: one by one, or as compiled blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ude._typing import FlatField, VectorField
from ude.methods.method import Method
from ude.solve.controllers import Controller
from ude.solve.events import Handler, Happening
from ude.solve.flatten import Layout
from ude.solve.march import march
from ude.solve.saving import AtTimes
from ude.solve.start import start
from ude.solve.step import RUNNING, Attempt, Limits, Point, attempt, evaluations_of, with_more
from ude.solve.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Everything about a solve that does not change from step to step.

    Args:
        vector_field: The user's function.
        p: The user's parameters.
        layout: Between the user's state and `(batch, state)`.
        field: The vector field as methods see it.
        method: Makes steps.
        controller: Decides on them.
        limits: End of the interval and tolerances.
        differentiate: The result is to carry a gradient.
        keep_states: States and stages of every attempt are needed later.
        report: Called now and then with the point reached; None for silence.
        handler: Looks for events after every attempt; None if there are none to look for.
        save: Times whose states are all that is wanted of the steps. An engine that saves them on the way need not keep
            states, whatever `keep_states` says; None if more is wanted.
        first: Length of the first step, positive, shape `(batch,)`; None to choose it.
    """

    vector_field: VectorField
    p: Any
    layout: Layout
    field: FlatField
    method: Method
    controller: Controller
    limits: Limits
    differentiate: bool
    keep_states: bool = True
    report: Callable[[Tensor], None] | None = None
    handler: Handler | None = None
    save: AtTimes | None = None
    first: Tensor | None = None

    def begin(self, t: Tensor, y: Tensor, *, probe: bool) -> tuple[Point, bool]:
        """Return the point before the first step, and whether it carries a gradient.

        Args:
            t: Start, shape `(batch,)`.
            y: State there, shape `(batch, state)`.
            probe: Find out about the gradient at any cost; else it may be said to be there when it is not.
        """
        first = self.first
        if first is None and not bool((self.limits.stops[-1] != t.detach()).any()):
            first = torch.zeros_like(t.detach())
        point = start(self.field, self.method, self.controller, self.limits, t, y, first)
        if not torch.is_grad_enabled():
            return point, False
        gradient = any(x.requires_grad for x in (t, y, *point.carry))
        if not gradient and not point.carry:
            gradient = not probe or self.field(t, y).requires_grad
        return point, gradient


class Beginning(NamedTuple):
    """What a solve begins with.

    Args:
        engine: Makes the attempts.
        point: Where they begin.
        gradient: The result may carry a gradient.
    """

    engine: Engine
    point: Point
    gradient: bool


@runtime_checkable
class Engine(Protocol):
    """Runs attempts until every sample has come to its end, or for a given number of attempts."""

    @property
    def block(self) -> int:
        """Segments are multiples of so many attempts."""
        ...

    @property
    def handles_events(self) -> bool:
        """It can look for events after every attempt."""
        ...

    @property
    def forgets(self) -> bool:
        """It keeps nothing of an attempt that nobody wants, so that segments may be of any length."""
        ...

    def start(self, task: Task, t: Tensor, y: Tensor) -> Beginning:
        """Return the point before the first step, and the engine that goes on from there."""
        ...

    def advance(self, task: Task, point: Point, attempts: int) -> tuple[Point, Trace]:
        """Run up to `attempts` attempts, at least one."""
        ...


@dataclass(frozen=True, slots=True)
class Eager:
    """Plain PyTorch, one operation after the other: every transform and every debugger works."""

    @property
    def block(self) -> int:
        """Attempts are single."""
        return 1

    @property
    def handles_events(self) -> bool:
        """It looks for events after every attempt."""
        return True

    @property
    def forgets(self) -> bool:
        """All attempts of a segment stay."""
        return False

    def start(self, task: Task, t: Tensor, y: Tensor) -> Beginning:
        """Return the point before the first step; a gradient need not be known of in advance."""
        return Beginning(self, *task.begin(t, y, probe=False))

    def advance(self, task: Task, point: Point, attempts: int) -> tuple[Point, Trace]:
        """Run up to `attempts` attempts; looks after each whether any sample is still running."""
        marched = march(task, point, attempts)
        if isinstance(marched, tuple):
            return marched
        records: list[Attempt] = []
        happenings: list[Happening] = []
        for _ in range(attempts):
            following, record = self._attempt(task, point)
            blocked = _blocked(task, record)
            if blocked is not None:
                again = torch.where(blocked, evaluations_of(task.method, record), 0)
                following, record = self._attempt(task, point, blocked)
                record = with_more(task.method, record, again)
            if marched is not None:
                record, marched = with_more(task.method, record, marched), None
            if task.handler is not None:
                following, record, new = task.handler.after(point, following, record)
                happenings += new
            records.append(record)
            point = following
            if task.report is not None:
                task.report(point.t)
            if not bool((point.status == RUNNING).any()):
                break
        return point, Trace.of(records, task.method, happenings)

    def _attempt(self, task: Task, point: Point, blocked: Tensor | None = None) -> tuple[Point, Attempt]:
        return attempt(task.field, task.method, task.controller, task.limits, point, blocked)


def _blocked(task: Task, record: Attempt) -> Tensor | None:
    """Return the samples whose attempt must be made again as one that fails, None if there are none."""
    blocked = None
    if task.differentiate and not bool(record.finite.all()):
        # Values stay the same; the backward pass no longer meets the infinite derivatives of this attempt.
        blocked = ~record.finite
    if task.handler is not None:
        outside = record.accepted & task.handler.violates(record.y1)
        if bool(outside.any()):
            blocked = ~record.finite | outside
    return blocked
