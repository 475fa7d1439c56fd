"""The continuous solution, evaluated on demand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ude._typing import State
from ude.solve.dense import evaluate, locate
from ude.solve.engines import Task
from ude.solve.times import first_outside
from ude.solve.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpolant:
    """States between the steps, from the steps' own continuous extensions.

    Args:
        task: The solve.
        trace: Its attempts.
        t0: Start per sample, shape `(batch,)`.
        t1: Time that was reached per sample, shape `(batch,)`.
        y0: Initial state, shape `(batch, state)`.
        direction: 1 or -1 per sample.
    """

    task: Task
    trace: Trace | None
    t0: Tensor
    t1: Tensor
    y0: Tensor
    direction: Tensor

    def __call__(self, t: Tensor) -> State:
        """Return the state at `t` of shape `()`, `(times,)` or `(times, batch)`.

        Raises:
            ValueError: If a time lies outside the interval that was solved.
        """
        ts = t.to(self.t0)
        allowed = 2 if self.task.layout.batched else 1
        if ts.ndim > allowed or (ts.ndim == 2 and ts.shape[1] != len(self.t0)):
            raise ValueError(
                f"`t` must be a number or have shape (times,){' or (times, batch)' if allowed == 2 else ''}, "
                f"got {tuple(t.shape)}."
            )
        rows = ts.reshape(-1, *ts.shape[1:]) if ts.ndim else ts.reshape(1)
        rows = rows if rows.ndim == 2 else rows.unsqueeze(-1).expand(-1, len(self.t0))
        self._check_range(rows.detach())
        y = self._evaluate(rows)
        state = self.task.layout.unflatten(y)
        return state if ts.ndim else self.task.layout.unflatten(y[0])

    def _evaluate(self, ts: Tensor) -> Tensor:
        start = self.y0.expand(len(ts), *self.y0.shape)
        if self.trace is None:
            return start
        index, inside = locate(self.trace, ts.detach(), self.direction, self.t0)
        task = self.task
        values, _ = evaluate(task.field, task.method, self.trace, ts, index, inside, differentiable=ts.requires_grad)
        return torch.where(inside.unsqueeze(-1), values, start)

    def _check_range(self, ts: Tensor) -> None:
        signed, low, high = ts * self.direction, self.t0.detach() * self.direction, self.t1.detach() * self.direction
        place = first_outside(signed, low, high)
        if place is not None:
            row, sample = place
            raise ValueError(
                f"The solution is known for t in [{self.t0[sample]:.6g}, {self.t1[sample]:.6g}], got "
                f"t = {ts[row, sample]:.6g}. Solve over a longer `t_span` to go further."
            )
