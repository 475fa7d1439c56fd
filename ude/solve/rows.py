"""Attempts written down row by row in two tensors, by engines that do not come back after each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ude.solve.step import Attempt
from ude.solve.trace import PackedAttempts, Trace

NUMBERS = 7
"""Of every attempt and sample: `t`, `dt`, `t1`, error ratio, stiffness, and the flags active and accepted."""


class Rows(NamedTuple):
    """What is kept of some attempts.

    Args:
        numbers: Shape `(attempts, 7, batch)`.
        states: `y1`, `y0` and the stages, shape `(attempts, 2 + stages, batch, state)`; no rows if not needed.
    """

    numbers: Tensor
    states: Tensor


def numbers_of(made: Attempt) -> Tensor:
    """Return the numbers of one attempt, shape `(7, batch)`."""
    flags = (made.active.to(made.dt), made.accepted.to(made.dt))
    return torch.stack([made.t, made.dt, made.t1, made.error, made.stiffness, *flags])


def states_of(made: Attempt) -> Tensor:
    """Return its states and stages, shape `(2 + stages, batch, state)`."""
    return torch.stack([made.y1, made.y0, *made.stages])


def trace_of(parts: Sequence[Rows]) -> Trace:
    """Join rows, without those of attempts that were made after every sample had come to its end."""
    numbers, states = (torch.cat(column) if len(parts) > 1 else column[0] for column in zip(*parts, strict=True))
    count = int((numbers[:, 5] > 0).any(-1).sum())
    t, dt, t1, error, stiffness, active, accepted = numbers[:count].unbind(1)
    return Trace(
        t=t,
        dt=dt,
        t1=t1,
        error=error,
        stiffness=stiffness,
        active=active > 0,
        accepted=accepted > 0,
        store=PackedAttempts(states[:count]),
    )
