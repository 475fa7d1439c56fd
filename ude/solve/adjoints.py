"""How much of the forward pass is kept for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ude import ad
from ude.solve.engines import Engine, Task
from ude.solve.events import Happening
from ude.solve.saving import Saver
from ude.solve.step import Point
from ude.solve.trace import Saved, Trace


class Numbers(NamedTuple):
    """What is kept of every attempt; shape `(attempts, batch)`. See `Trace`; `dt` is the step as an event cut it."""

    t: Tensor
    dt: Tensor
    t1: Tensor
    error: Tensor
    stiffness: Tensor
    active: Tensor
    accepted: Tensor


class Segment(NamedTuple):
    """A run of attempts and what it leaves.

    Args:
        point: Where it ended.
        saved: Its share of the saved states.
        numbers: Those of its attempts.
        trace: The attempts, where they are kept for the continuous solution.
        happenings: Its events.
        evaluations: Those of its attempts, shape `(batch,)`; None if each took `Method.evaluations`.
    """

    point: Point
    saved: Saved
    numbers: Numbers
    trace: Trace | None
    happenings: tuple[Happening, ...] = ()
    evaluations: Tensor | None = None


RunSegment = Callable[[Point, int, Tensor], Segment]


@runtime_checkable
class Adjoint(Protocol):
    """Divides the integration into segments."""

    @property
    def keeps_trace(self) -> bool:
        """The attempts stay in memory, so that a continuous solution costs nothing more."""
        ...

    def run(self, run: RunSegment, point: Point, max_steps: int, block: int, *, dense: bool) -> list[Segment]:
        """Run segments until every sample has come to its end or `max_steps` attempts are made."""
        ...


@dataclass(frozen=True, slots=True)
class Direct:
    """Differentiate the steps as they were made; memory grows with their number."""

    @property
    def keeps_trace(self) -> bool:
        """The backward pass needs the attempts anyway."""
        return True

    def run(self, run: RunSegment, point: Point, max_steps: int, block: int, *, dense: bool) -> list[Segment]:
        """Run one segment, or pieces that are forgotten one by one if no continuous solution is wanted."""
        return _run_all(run, point, max_steps, lambda i: max_steps if dense else 128)


@dataclass(frozen=True, slots=True)
class Checkpointed:
    r"""Differentiate the steps as they were made, in memory that grows with the root of their number.

    The states at the start of segments of 1, 2, 3, ... attempts are kept; the backward pass makes each segment again.
    $N$ attempts need $\sqrt{2N}$ segments of at most $\sqrt{2N}$ attempts, without $N$ being known, and one
    forward pass more. The gradient is that of `Direct`. The solution has no continuous extension.
    """

    @property
    def keeps_trace(self) -> bool:
        """Only the saved states are kept."""
        return False

    def run(self, run: RunSegment, point: Point, max_steps: int, block: int, *, dense: bool) -> list[Segment]:
        """Run segments of growing length, each of which is forgotten until the backward pass."""

        def forgetful(point: Point, attempts: int, offset: Tensor) -> Segment:
            return ad.checkpoint(run, point, attempts, offset)

        return _run_all(forgetful, point, max_steps, lambda i: (i + 1) * block)


def _run_all(run: RunSegment, point: Point, max_steps: int, length: Callable[[int], int]) -> list[Segment]:
    segments: list[Segment] = []
    left, offset = max_steps, torch.zeros_like(point.status)
    while left > 0 and bool((point.status < 0).any()):
        if segments:
            offset = offset + segments[-1].numbers.accepted.sum(0)
        segments.append(run(point, min(left, length(len(segments))), offset))
        point = segments[-1].point
        left -= len(segments[-1].numbers.accepted)
    return segments


def segment_runner(task: Task, engine: Engine, saver: Saver, *, keep_trace: bool) -> RunSegment:
    """Return the function that advances by one segment and collects what is to be saved from it."""

    def run(point: Point, attempts: int, offset: Tensor) -> Segment:
        following, trace = engine.advance(task, point, attempts)
        saved = trace.saved
        if saved is None:
            saved = saver.collect(task.field, task.method, point.t, trace, offset)
        # An event cuts a step short; its continuous extension still belongs to the whole of it.
        dt = trace.dt if task.handler is None else torch.where(trace.accepted, trace.t1 - trace.t, trace.dt).detach()
        t1 = trace.t1.detach()
        numbers = Numbers(trace.t, dt, t1, trace.error, trace.stiffness, trace.active, trace.accepted)
        evaluations = None if trace.evaluations is None else trace.evaluations.sum(0)
        return Segment(following, saved, numbers, trace if keep_trace else None, trace.happenings, evaluations)

    return run
