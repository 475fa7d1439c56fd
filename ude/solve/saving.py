"""Which states are kept: those at given times, or those at the end of every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.methods.method import Method, StepResult
from ude.solve.trace import Trace


class Saved(NamedTuple):
    """What one segment contributes to the saved states.

    Args:
        values: States, shape `(rows, batch, state)`.
        place: Index of each row in the output per sample, -1 where the row is none of that sample's;
            shape `(rows, batch)`.
        evaluations: Evaluations of the vector field that dense output cost, shape `(batch,)`.
    """

    values: Tensor
    place: Tensor
    evaluations: Tensor


class Saver(Protocol):
    """Collects the saved states of one segment from its trace."""

    def collect(self, field: FlatField, method: Method, start: Tensor, trace: Trace, offset: Tensor) -> Saved:
        """Return the states to keep; `start` is the time before the segment, `offset` its accepted predecessors."""
        ...


@dataclass(frozen=True, slots=True)
class AtTimes:
    """Save at given times, which are monotone in the direction of time.

    Args:
        ts: Times, shape `(times, batch)`.
        direction: 1 or -1 per sample.
        t0: Start of the integration, shape `(batch,)`.
        differentiable: Times carry a gradient: every state, those at ends of steps too, comes from the interpolant.
    """

    ts: Tensor
    direction: Tensor
    t0: Tensor
    differentiable: bool

    def collect(self, field: FlatField, method: Method, start: Tensor, trace: Trace, offset: Tensor) -> Saved:
        """Interpolate all times within the segment at once; a time at the end of a step gets its state exactly."""
        index, inside = locate(trace, self.ts.detach(), self.direction, start)
        if self.differentiable:
            first = (self.ts.detach() == self.t0) & (start.detach() == self.t0) & trace.accepted.any(0)
            index = torch.where(first, trace.accepted.int().argmax(0), index)
            inside = inside | first
        rows = inside.any(-1).nonzero().squeeze(-1)
        if len(rows) == 0:
            return Saved(trace.store.ends([0])[:0], offset.new_empty(0, len(offset)), torch.zeros_like(offset))
        # The times of a segment are neighbours; samples differ by a few rows at its ends.
        window = slice(int(rows[0]), int(rows[-1]) + 1)
        inside, index = inside[window], index[window]
        values, evaluations = evaluate(
            field, method, trace, self.ts[window], index, inside, differentiable=self.differentiable
        )
        place = torch.arange(window.start, window.stop, device=offset.device).unsqueeze(-1)
        return Saved(values, torch.where(inside, place, -1), evaluations)


@dataclass(frozen=True, slots=True)
class EveryStep:
    """Save the end of every accepted step; output 0 is the initial state.

    Args:
        end: End of the interval if times carry a gradient, shape `(batch,)`; else None.
    """

    end: Tensor | None = None

    def collect(self, field: FlatField, method: Method, start: Tensor, trace: Trace, offset: Tensor) -> Saved:
        """Return the ends of all attempts; rejected ones have no place in the output."""
        attempts = len(trace.t)
        order = offset + trace.accepted.cumsum(0)
        place = torch.where(trace.accepted, order, -1)
        if self.end is None:
            return Saved(trace.store.ends(range(attempts)), place, torch.zeros_like(offset))
        ts = torch.where(trace.t1 == self.end, self.end, trace.t1.detach())
        index = torch.arange(attempts, device=offset.device).unsqueeze(-1).expand_as(place)
        values, evaluations = evaluate(field, method, trace, ts, index, trace.accepted, differentiable=True)
        return Saved(values, place, evaluations)


def locate(trace: Trace, ts: Tensor, direction: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Find the accepted attempt that covers each time, per sample.

    Args:
        trace: The attempts.
        ts: Times, shape `(times, batch)`.
        direction: 1 or -1 per sample.
        start: Time before the first attempt, shape `(batch,)`.

    Returns:
        Index of the attempt and whether the time lies in `(start, end]`, both of shape `(times, batch)`.
    """
    wanted = (ts * direction).T.contiguous()
    ends = (trace.t1.detach() * direction).T.contiguous()
    # A rejected attempt ends where its predecessor ended, so the first end at or after a time is an accepted one.
    index = torch.searchsorted(ends, wanted)
    inside = (index < ends.shape[1]) & (wanted > (start.detach() * direction).unsqueeze(-1))
    return index.clamp(max=ends.shape[1] - 1).T, inside.T


def evaluate(
    field: FlatField,
    method: Method,
    trace: Trace,
    ts: Tensor,
    index: Tensor,
    inside: Tensor,
    *,
    differentiable: bool,
) -> tuple[Tensor, Tensor]:
    """Evaluate the continuous extension at many times at once.

    Args:
        field: Vector field, for methods that need extra stages.
        method: Knows the weights.
        trace: The attempts.
        ts: Times, shape `(times, batch)`.
        index: The attempt that covers each time, same shape.
        inside: Where the result matters, same shape.
        differentiable: Send the gradient of every state through the interpolant, to the times.

    Returns:
        States `(times, batch, state)`, and the extra evaluations per sample.
    """
    sample = torch.arange(ts.shape[1], device=ts.device)
    at_end = inside & (ts.detach() == trace.t1.detach()[index, sample])
    between = inside if differentiable else inside & ~at_end
    evaluations = torch.zeros_like(sample)
    if not bool(between.any()):
        return _ends(trace, index, sample), evaluations
    used = torch.zeros_like(trace.active)
    used[index[between], sample.expand_as(index)[between]] = True
    rows = used.any(-1).nonzero().squeeze(-1).tolist()
    position = (used.any(-1).cumsum(0) - 1).clamp(min=0)[index]
    t, dt, y0, stages = _dense(field, method, trace, rows)
    length = torch.where(between, dt[position, sample], 1.0)
    theta = torch.where(between, (ts - t[position, sample]) / length, 0.0)
    weights = method.dense_weights(theta).unsqueeze(-1)
    slope = sum(
        (w * stage[position, sample] for w, stage in zip(weights, stages, strict=True)), torch.zeros_like(y0[:1])
    )
    values = y0[position, sample] + length.unsqueeze(-1) * slope
    if bool(at_end.any()):
        ends = _ends(trace, index, sample)
        if differentiable:
            ends = ends.detach() + (values - values.detach())
        values = torch.where(at_end.unsqueeze(-1), ends, values)
    return values, used.sum(0) * method.dense_evaluations


def _ends(trace: Trace, index: Tensor, sample: Tensor) -> Tensor:
    """Return the state at the end of each step named by `index`."""
    rows = index.unique().tolist()
    place = torch.searchsorted(torch.tensor(rows, device=index.device), index.contiguous())
    return trace.store.ends(rows)[place, sample]


def _dense(
    field: FlatField, method: Method, trace: Trace, rows: list[int]
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """Return start, length, initial state and all stages of these attempts, stacked."""
    t, dt = trace.t[rows], trace.dt[rows].detach()
    y0, stages = trace.store.starts(rows)
    if not method.dense_evaluations:
        return t, dt, y0, stages
    y1 = trace.store.ends(rows)
    extended = [
        method.dense_stages(
            field,
            t[i],
            dt[i],
            y0[i],
            StepResult(y1[i], None, None, tuple(stage[i] for stage in stages), ()),
        )
        for i in range(len(rows))
    ]
    return t, dt, y0, tuple(torch.stack(stage) for stage in zip(*extended, strict=True))
