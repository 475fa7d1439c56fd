"""From segments to a `Solution`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ude.methods.method import Method
from ude.problems import EventLog, Solution, Stats, Status, Steps
from ude.solve.adjoints import Numbers, Segment
from ude.solve.engines import Task
from ude.solve.interpolant import Interpolant
from ude.solve.step import RUNNING, Point
from ude.solve.times import Span


def assemble(
    task: Task,
    start: Point,
    segments: Sequence[Segment],
    times: Tensor | None,
    span: Span,
    evaluations: int | Tensor,
    *,
    only_end: bool,
    dense: bool,
) -> Solution:
    """Put the parts of a finished integration together.

    Args:
        task: The solve.
        start: Where it began.
        segments: What was done.
        times: Times to save at, `(times, batch)`; None for every step.
        span: The interval, its end on the autograd graph.
        evaluations: Evaluations of the vector field before the first step, a number or shape `(batch,)`.
        only_end: The end is the only time to save at.
        dense: Keep the continuous solution.
    """
    layout = task.layout
    end = segments[-1].point if segments else start
    status = end.status.masked_fill(end.status == RUNNING, int(Status.MAX_STEPS))
    numbers = _joined(start, segments)
    column: Callable[[Tensor], Tensor] = (lambda x: x) if layout.batched else (lambda x: x.squeeze(-1))
    steps = Steps(
        t=column(numbers.t.detach()),
        dt=column(numbers.dt),
        error=column(numbers.error),
        stiffness=column(numbers.stiffness),
        accepted=column(numbers.accepted),
    )
    accepted, attempts = numbers.accepted.sum(0), numbers.active.sum(0)
    stats = Stats(
        nfe=column(_evaluations(task.method, segments, attempts) + evaluations),
        accepted=column(accepted),
        rejected=column(attempts - accepted),
    )
    if times is None:
        ts, ys = _every_step(start, segments, numbers, status, span.t1)
    else:
        ts, ys = times, _at_end(end, status) if only_end else _at_times(start, segments, times)
    interpolant = None
    if dense and len(segments) <= 1:
        trace = segments[0].trace if segments else None
        interpolant = Interpolant(task=task, trace=trace, t0=start.t, t1=end.t, y0=start.y, direction=span.direction)
    return Solution(
        ts=column(ts),
        ys=layout.unflatten(ys),
        steps=steps,
        stats=stats,
        status=column(status),
        interpolant=interpolant,
        events=None if task.handler is None else _event_log(task, segments, start),
    )


def _event_log(task: Task, segments: Sequence[Segment], start: Point) -> EventLog:
    """Return the events of every sample one below the other; samples with fewer are padded at the end."""
    layout = task.layout
    happenings = [happening for segment in segments for happening in segment.happenings]
    which = torch.stack([one.which for one in happenings]) if happenings else start.status.new_empty(0, len(start.t))
    # Sorting short rows of small numbers is much faster than columns.
    order = (which < 0).T.to(torch.int8).contiguous().argsort(dim=1, stable=True).T
    rows = int((which >= 0).sum(0).max()) if happenings else 0
    order, sample = order[:rows], torch.arange(len(start.t), device=start.t.device)

    def sorted_rows(name: str, empty: Tensor) -> Tensor:
        return torch.stack([getattr(one, name) for one in happenings])[order, sample] if happenings else empty

    happened = which[order, sample] >= 0
    nothing = start.y.new_empty(0, *start.y.shape)
    states = [
        layout.unflatten(torch.where(happened.unsqueeze(-1), sorted_rows(name, nothing), torch.nan))
        for name in ("before", "after")
    ]
    ts = sorted_rows("t", start.t.new_empty(0, len(start.t)))
    column = (lambda x: x) if layout.batched else (lambda x: x[..., 0])
    return EventLog(which=column(which[order, sample]), ts=column(ts), before=states[0], after=states[1])


def _evaluations(method: Method, segments: Sequence[Segment], attempts: Tensor) -> Tensor:
    """Return the evaluations of all attempts and of dense output, per sample."""
    if all(segment.evaluations is None for segment in segments):
        counts = attempts * method.evaluations
    else:
        usual = (segment.numbers.active.sum(0) * method.evaluations for segment in segments)
        own = (segment.evaluations for segment in segments)
        counts = sum(count if counted is None else counted for count, counted in zip(usual, own, strict=True))
    extra = [segment.saved.evaluations for segment in segments if segment.saved.evaluations is not None]
    return sum(extra, counts)  # pyright: ignore[reportReturnType]


def _joined(start: Point, segments: Sequence[Segment]) -> Numbers:
    if not segments:
        nothing = start.dt.new_empty(0, len(start.dt))
        return Numbers(nothing, nothing, nothing, nothing, nothing, nothing.bool(), nothing.bool())
    if len(segments) == 1:
        return segments[0].numbers
    return Numbers(*(torch.cat(column) for column in zip(*(segment.numbers for segment in segments), strict=True)))


def _at_times(start: Point, segments: Sequence[Segment], times: Tensor) -> Tensor:
    """Put every saved state in its place; the initial state at the start, NaN after a failure."""
    only = segments[0].saved if len(segments) == 1 else None
    if only is not None and only.place is None:
        return only.values
    at_start = times.detach() == start.t.detach()
    if only is not None and only.place is not None and bool((only.place >= 0).all()):
        values = only.values
        if len(values) == len(times):
            return values
        if len(values) == len(times) - 1 and bool(at_start[0].all()):
            return torch.cat([start.y.unsqueeze(0), values])
    rows = [torch.full_like(start.y, torch.nan).unsqueeze(0), start.y.unsqueeze(0)]
    source = at_start.long()
    length = 2
    for segment in segments:
        place = segment.saved.place
        assert place is not None  # else there were no other segments
        row, sample = (place >= 0).nonzero(as_tuple=True)
        source[place[row, sample], sample] = row + length
        rows.append(segment.saved.values)
        length += len(place)
    return torch.cat(rows)[source, torch.arange(times.shape[1], device=times.device)]


def _at_end(end: Point, status: Tensor) -> Tensor:
    """Return the final state, NaN where the sample failed."""
    return torch.where((status == int(Status.SUCCESS)).unsqueeze(-1), end.y, torch.nan).unsqueeze(0)


def _every_step(
    start: Point, segments: Sequence[Segment], numbers: Numbers, status: Tensor, t1: Tensor
) -> tuple[Tensor, Tensor]:
    """Return times and states of the accepted steps; samples with fewer repeat their last row, NaN if they failed."""
    batch = len(start.t)
    order = numbers.accepted.cumsum(0)
    length = int(order[-1].max()) + 1 if len(order) else 1
    last = order[-1] if len(order) else torch.zeros_like(status)
    wanted = torch.arange(length, device=status.device).unsqueeze(-1)
    # Row 0 is the initial state, row 1 + i the end of attempt i; the first attempt that reaches a count made it.
    reached = torch.searchsorted(order.T.contiguous(), torch.minimum(wanted, last).T.contiguous()).T
    source = torch.where((wanted == 0) | (last == 0), 0, 1 + reached)
    sample = torch.arange(batch, device=status.device)
    ends = torch.cat([start.t.unsqueeze(0), _end_times(numbers, t1)])
    states = torch.cat([start.y.unsqueeze(0), *(segment.saved.values for segment in segments)])
    ys = states[source, sample]
    failed = (wanted > last) & (status != int(Status.SUCCESS)) & (status != int(Status.TERMINATED))
    return ends[source, sample], torch.where(failed.unsqueeze(-1), torch.nan, ys)


def _end_times(numbers: Numbers, t1: Tensor) -> Tensor:
    """Return the end of every step; that of the interval on the autograd graph."""
    return torch.where(numbers.t1 == t1.detach(), t1, numbers.t1)
