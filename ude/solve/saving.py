"""Which states are kept: those at given times, or those at the end of every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.methods.method import Method
from ude.solve.dense import evaluate, locate
from ude.solve.trace import Saved, Trace


@runtime_checkable
class Saver(Protocol):
    """Collects the saved states of one segment from its trace."""

    needs_states: ClassVar[bool]
    """Whether it looks at the states and stages of the trace."""

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
    needs_states: ClassVar[bool] = True

    def collect(self, field: FlatField, method: Method, start: Tensor, trace: Trace, offset: Tensor) -> Saved:
        """Interpolate all times within the segment at once; a time at the end of a step gets its state exactly."""
        index, inside = locate(trace, self.ts.detach(), self.direction, start)
        if self.differentiable:
            first = (self.ts.detach() == self.t0) & (start.detach() == self.t0) & trace.accepted.any(0)
            index = torch.where(first, trace.accepted.int().argmax(0), index)
            inside = inside | first
        rows = inside.any(-1).nonzero().squeeze(-1)
        if len(rows) == 0:
            none = trace.store.ends([0])[:0].clone()  # a view of no rows would keep the whole state
            return Saved(none, offset.new_empty(0, len(offset)))
        # The times of a segment are neighbours; samples differ by a few rows at its ends.
        window = slice(int(rows[0]), int(rows[-1]) + 1)
        inside, index = inside[window], index[window]
        values, evaluations = evaluate(
            field, method, trace, self.ts[window], index, inside, differentiable=self.differentiable
        )
        place = torch.arange(window.start, window.stop, device=offset.device).unsqueeze(-1)
        return Saved(values, torch.where(inside, place, -1), evaluations)


@dataclass(frozen=True, slots=True)
class AtEnd:
    """Save the final state only, which needs no record of the steps."""

    needs_states: ClassVar[bool] = False

    def collect(self, field: FlatField, method: Method, start: Tensor, trace: Trace, offset: Tensor) -> Saved:
        """Return no rows: the final state is that of the last point."""
        return Saved(start.new_empty(0, len(start), 0), offset.new_empty(0, len(start)))


@dataclass(frozen=True, slots=True)
class EveryStep:
    """Save the end of every accepted step; output 0 is the initial state.

    Args:
        end: End of the interval if times carry a gradient, shape `(batch,)`; else None.
    """

    end: Tensor | None = None
    needs_states: ClassVar[bool] = True

    def collect(self, field: FlatField, method: Method, start: Tensor, trace: Trace, offset: Tensor) -> Saved:
        """Return the ends of all attempts; rejected ones have no place in the output."""
        attempts = len(trace.t)
        order = offset + trace.accepted.cumsum(0)
        place = torch.where(trace.accepted, order, -1)
        if self.end is None:
            return Saved(trace.store.ends(range(attempts)), place)
        ts = torch.where(trace.t1 == self.end, self.end, trace.t1.detach())
        index = torch.arange(attempts, device=offset.device).unsqueeze(-1).expand_as(place)
        values, evaluations = evaluate(field, method, trace, ts, index, trace.accepted, differentiable=True)
        return Saved(values, place, evaluations)
