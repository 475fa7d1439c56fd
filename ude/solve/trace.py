"""What happened in a run of attempts, stacked along a leading axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ude.methods.method import Method
from ude.solve.events import Happening
from ude.solve.step import Attempt, evaluations_of


class Saved(NamedTuple):
    """What one segment contributes to the saved states.

    Args:
        values: States, shape `(rows, batch, state)`.
        place: Index of each row in the output per sample, -1 where the row is none of that sample's;
            shape `(rows, batch)`. None if the rows are those of the output, none missing.
        evaluations: Evaluations of the vector field that dense output cost, shape `(batch,)`; None if none.
    """

    values: Tensor
    place: Tensor | None
    evaluations: Tensor | None = None


@runtime_checkable
class Store(Protocol):
    """States and stages of many attempts."""

    is_stacked: ClassVar[bool]
    """They lie in one tensor already, so that choosing some of them saves nothing."""

    def ends(self, rows: Sequence[int]) -> Tensor:
        """Return the state after each of these steps, shape `(rows, batch, state)`."""
        ...

    def starts(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the states before these steps, and their stages, of shape `(rows, batch, stages, state)`."""
        ...


@dataclass(frozen=True, slots=True)
class SingleAttempts:
    """Attempts as they were made; only those asked for are stacked."""

    attempts: tuple[Attempt, ...]
    is_stacked: ClassVar[bool] = False

    def ends(self, rows: Sequence[int]) -> Tensor:
        """Return the state after each of these steps, shape `(rows, batch, state)`."""
        return torch.stack([self.attempts[row].y1 for row in rows])

    def starts(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the states before these steps, and their stages, of shape `(rows, batch, stages, state)`."""
        chosen = [self.attempts[row] for row in rows]
        stages = torch.stack([stage for one in chosen for stage in one.stages])
        return torch.stack([one.y0 for one in chosen]), stages.unflatten(0, (len(rows), -1)).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class PackedAttempts:
    """Attempts stacked by a compiled block: `y1`, `y0` and the stages in one tensor.

    Args:
        states: Shape `(attempts, 2 + stages, batch, state)`.
    """

    states: Tensor
    is_stacked: ClassVar[bool] = True

    def ends(self, rows: Sequence[int]) -> Tensor:
        """Return the state after each of these steps, shape `(rows, batch, state)`."""
        ends = self.states[:, 0]
        return ends if len(rows) == len(ends) else ends[list(rows)]

    def starts(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the states before these steps, and their stages, of shape `(rows, batch, stages, state)`."""
        chosen = self.states if len(rows) == len(self.states) else self.states[list(rows)]
        return chosen[:, 1], chosen[:, 2:].transpose(1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The attempts of a segment; numbers per sample have shape `(attempts, batch)`.

    Args:
        t: Start of each step.
        dt: Its signed length.
        t1: Time after the attempt.
        error: Error ratio.
        stiffness: Stiffness estimate.
        active: The sample was running.
        accepted: The step was taken.
        store: States and stages.
        happenings: Events, in their order.
        saved: What was saved on the way; None if that is to be done from the store.
        evaluations: As many as the sample needed; None if every active one needed `Method.evaluations`.
    """

    t: Tensor
    dt: Tensor
    t1: Tensor
    error: Tensor
    stiffness: Tensor
    active: Tensor
    accepted: Tensor
    store: Store
    happenings: tuple[Happening, ...] = ()
    saved: Saved | None = None
    evaluations: Tensor | None = None

    @classmethod
    def of(cls, attempts: Sequence[Attempt], method: Method, happenings: Sequence[Happening] = ()) -> Trace:
        """Stack the numbers of single attempts by a method."""
        names = ("t", "dt", "t1", "error", "stiffness", "active", "accepted")
        numbers = {name: torch.stack([getattr(one, name) for one in attempts]) for name in names}
        store = SingleAttempts(tuple(attempts))
        evaluations = None
        if any(one.evaluations for one in attempts):
            evaluations = torch.stack([evaluations_of(method, one) for one in attempts])
        return cls(**numbers, store=store, happenings=tuple(happenings), saved=None, evaluations=evaluations)
