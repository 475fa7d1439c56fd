"""What happened in a run of attempts, stacked along a leading axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ude.solve.step import Attempt

SCALARS = ("t", "dt", "t1", "error", "stiffness", "active", "accepted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The attempts of a segment: per-sample numbers as `(attempts, batch)`, states and stages not stacked yet.

    Args:
        t: Start of each step.
        dt: Its signed length.
        t1: Time after the attempt.
        error: Error ratio.
        stiffness: Stiffness estimate.
        active: The sample was running.
        accepted: The step was taken.
        blocks: The attempts themselves, singly or already stacked in blocks.
        block: Attempts per stacked block; 0 where they are single.
    """

    t: Tensor
    dt: Tensor
    t1: Tensor
    error: Tensor
    stiffness: Tensor
    active: Tensor
    accepted: Tensor
    blocks: tuple[Attempt, ...]
    block: int = 0

    @classmethod
    def of(cls, blocks: Sequence[Attempt], block: int = 0) -> Trace:
        """Stack single attempts (`block=0`), or join blocks of `block` stacked attempts each."""
        join = torch.cat if block else torch.stack
        scalars = {name: join([getattr(one, name) for one in blocks]) for name in SCALARS}
        return cls(**scalars, blocks=tuple(blocks), block=block)

    def states(self, name: str, rows: Sequence[int]) -> Tensor:
        """Return `y0` or `y1` of these attempts, shape `(rows, batch, state)`."""
        return self._gather([getattr(one, name) for one in self.blocks], rows)

    def stages(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        """Return every stage of these attempts, each of shape `(rows, batch, state)`."""
        return tuple(self._gather(stage, rows) for stage in zip(*(one.stages for one in self.blocks), strict=True))

    def _gather(self, values: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
        if not self.block:
            return torch.stack([values[row] for row in rows])
        joined = values[0] if len(values) == 1 else torch.cat(list(values))
        return joined if len(rows) == len(joined) else joined[list(rows)]
