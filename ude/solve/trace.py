"""What happened in a run of attempts, stacked along a leading axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ude.solve.step import Attempt


class Store(Protocol):
    """States and stages of many attempts."""

    def ends(self, rows: Sequence[int]) -> Tensor:
        """Return the state after each of these steps, shape `(rows, batch, state)`."""
        ...

    def starts(self, rows: Sequence[int]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the state before each of these steps and their stages, each of shape `(rows, batch, state)`."""
        ...


@dataclass(frozen=True, slots=True)
class SingleAttempts:
    """Attempts as they were made; only those asked for are stacked."""

    attempts: tuple[Attempt, ...]

    def ends(self, rows: Sequence[int]) -> Tensor:
        """Return the state after each of these steps, shape `(rows, batch, state)`."""
        return torch.stack([self.attempts[row].y1 for row in rows])

    def starts(self, rows: Sequence[int]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the state before each of these steps and their stages, each of shape `(rows, batch, state)`."""
        chosen = [self.attempts[row] for row in rows]
        stages = zip(*(one.stages for one in chosen), strict=True)
        return torch.stack([one.y0 for one in chosen]), tuple(torch.stack(stage) for stage in stages)


@dataclass(frozen=True, slots=True)
class PackedAttempts:
    """Attempts stacked by a compiled block: `y1`, `y0` and the stages in one tensor.

    Args:
        states: Shape `(attempts, 2 + stages, batch, state)`.
    """

    states: Tensor

    def ends(self, rows: Sequence[int]) -> Tensor:
        """Return the state after each of these steps, shape `(rows, batch, state)`."""
        return self.states[list(rows), 0]

    def starts(self, rows: Sequence[int]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the state before each of these steps and their stages, each of shape `(rows, batch, state)`."""
        chosen = self.states if len(rows) == len(self.states) else self.states[list(rows)]
        _, y0, *stages = chosen.unbind(1)
        return y0, tuple(stages)


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
    """

    t: Tensor
    dt: Tensor
    t1: Tensor
    error: Tensor
    stiffness: Tensor
    active: Tensor
    accepted: Tensor
    store: Store

    @classmethod
    def of(cls, attempts: Sequence[Attempt]) -> Trace:
        """Stack the numbers of single attempts."""
        names = ("t", "dt", "t1", "error", "stiffness", "active", "accepted")
        numbers = {name: torch.stack([getattr(one, name) for one in attempts]) for name in names}
        return cls(**numbers, store=SingleAttempts(tuple(attempts)))
