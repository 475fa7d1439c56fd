"""One attempt with its continuous extension, and some of its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ude import ad
from ude._typing import FlatField
from ude.methods.method import Method, StepResult, extra_evaluations
from ude.solve.step import Attempt

FlatCondition = Callable[[Tensor, Tensor], Tensor]


class Rows:
    """Some samples of a batch: own work is done on these only, while the user's functions always see the whole batch.

    A condition may close over one number per sample, so it cannot be called with fewer of them.

    Args:
        chosen: Which samples, shape `(batch,)`.
    """

    def __init__(self, chosen: Tensor) -> None:
        index = chosen.nonzero().squeeze(-1)
        self.count = len(index)
        self._index = None if len(index) == len(chosen) else index

    def take(self, whole: Tensor, dim: int = 0) -> Tensor:
        """Return the rows of these samples."""
        return whole if self._index is None else whole.index_select(dim, self._index)

    def put(self, rows: Tensor, whole: Tensor) -> Tensor:
        """Return the whole batch with these samples' rows replaced; differentiable in both."""
        return rows if self._index is None else whole.index_copy(0, self._index, rows)


class Section:
    """One attempt with its continuous extension.

    Args:
        field: Vector field, for methods that need extra stages.
        method: Knows the weights.
        record: The attempt, not yet cut short.
    """

    def __init__(self, field: FlatField, method: Method, record: Attempt) -> None:
        stages = record.stages
        if method.dense_evaluations:
            result = StepResult(record.y1, None, None, stages, ())
            stages = method.dense_stages(field, record.t, record.dt, record.y0, result)
        self.record, self.method, self.stages = record, method, stages
        # A condition at zero is looked at again as soon as it has left zero by more than rounding.
        self.nudge = torch.finfo(record.dt.dtype).eps ** 0.4
        self.known = torch.stack([stage.detach() for stage in stages])

    @property
    def evaluations(self) -> Tensor | int:
        """How often the extra stages evaluated the vector field, for the samples whose step was accepted."""
        return extra_evaluations(self.method, self.record.stages) * self.record.accepted

    def look(self, condition: FlatCondition, places: Sequence[float], states: Tensor) -> Tensor:
        """Return a condition at the start, at places that all samples share, and at the end: `(places + 2, batch)`."""
        record = self.record
        t0, t1 = record.t.detach(), record.t1.detach()
        ts = [t0, *(torch.add(t0, record.dt, alpha=place) for place in places), t1]
        ys = [record.y0.detach(), *states.unbind(), record.y1.detach()]
        return torch.stack([condition(t, y) for t, y in zip(ts, ys, strict=True)]).detach()

    def known_states(self, places: Sequence[float]) -> Tensor:
        """Return states at fractions that all samples share, shape `(places, batch, state)`, without gradient."""
        y0 = self.record.y0.detach()
        weights = self.method.dense_weights(self.record.dt.new_tensor(places))
        slopes = torch.tensordot(weights.T.to(y0.dtype), self.known, 1)
        # Written out: small states make a broadcast along the last axis six times as slow.
        length = self.record.dt.to(y0.dtype).unsqueeze(-1).expand_as(y0).contiguous()
        return torch.addcmul(y0, length, slopes, out=slopes)


class Part:
    """Some samples of a section; fractions of the step have shape `(rows,)`.

    Args:
        section: The attempt.
        rows: Which samples.
    """

    def __init__(self, section: Section, rows: Rows) -> None:
        record = section.record
        self.section, self.rows, self.dt = section, rows, rows.take(record.dt)
        self.known_t, self.known_y0 = rows.take(record.t.detach()), rows.take(record.y0.detach())
        # The long axis last: states are few.
        self.known = rows.take(section.known, 1).transpose(1, 2).contiguous()

    def time(self, theta: Tensor) -> Tensor:
        """Return times; on the autograd graph only through the start time."""
        return self.rows.take(self.section.record.t) + theta * self.dt

    def extension(self) -> Callable[[Tensor], Tensor]:
        """Return the states as a function of the fraction, on the autograd graph."""
        y0 = self.rows.take(self.section.record.y0)
        # In the same place in memory as what the zero was found on, so that the last digit is the same.
        stages = torch.stack([self.rows.take(stage) for stage in self.section.stages]).transpose(1, 2).contiguous()
        return lambda theta: self._state(theta, y0, stages)

    def slope(self, theta: Tensor, by_state: Tensor) -> Tensor:
        r"""Return $g_y \dot y$ along the step, given $g_y$ of shape `(rows, state)`, without gradient."""
        by_weight = (by_state.conj().T.contiguous() * self.known).sum(1).real.to(theta.dtype)
        with torch.enable_grad():
            place = theta.detach().requires_grad_()
            weights = self.section.method.dense_weights(place)
        return ad.grad(weights, [place], by_weight)[0]

    def known_state(self, theta: Tensor) -> Tensor:
        """Return states without gradient."""
        return self._state(theta, self.known_y0, self.known)

    def among(self, chosen: Tensor) -> Part:
        """Return the part with some of these samples, given as a mask of shape `(rows,)`."""
        return Part(self.section, Rows(self.rows.put(chosen, torch.zeros_like(self.section.record.accepted))))

    def value(self, condition: FlatCondition, t: Tensor, y: Tensor) -> Tensor:
        """Return a condition of these samples; the others stand at the end of the step meanwhile."""
        rows, record = self.rows, self.section.record
        return rows.take(condition(rows.put(t, record.t1.detach()), rows.put(y, record.y1.detach())))

    def chosen_value(self, conditions: Sequence[FlatCondition], which: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Return the condition that each sample has met."""
        values = [self.value(condition, t, y) for condition in conditions]
        return values[0] if len(values) == 1 else torch.stack(values).gather(0, which.unsqueeze(0))[0]

    def _state(self, theta: Tensor, y0: Tensor, stages: Tensor) -> Tensor:
        weights = self.section.method.dense_weights(theta).to(y0.dtype).unsqueeze(1)
        return torch.addcmul(y0.T, (weights * stages).sum(0), self.dt.to(y0.dtype)).T.contiguous()


@dataclass(frozen=True, slots=True)
class Along:
    """A condition as a function of the fraction of the step.

    Args:
        part: The samples.
        condition: The condition.
    """

    part: Part
    condition: FlatCondition

    def __call__(self, places: Tensor) -> Tensor:
        """Return the condition, without gradient."""
        part = self.part
        time, state = part.known_t + places * part.dt, part.known_state(places)
        return part.value(self.condition, time, state).to(places.dtype)

    def among(self, chosen: Tensor) -> Along:
        """Return the same for some of the samples."""
        return Along(self.part.among(chosen), self.condition)
