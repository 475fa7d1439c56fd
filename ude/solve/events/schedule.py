"""Times at which steps must end, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ude.solve.events.event import Event, Periodic, PresetTimes

NOBODY = -1
"""Owner of a stop that belongs to no event."""
MOST = 1_000_000
"""Periods beyond which a solve would only run from event to event."""


class Schedule(NamedTuple):
    """The stops of every sample in the direction of time.

    Args:
        times: Shape `(stops, batch)`; the last row is the end, which samples with fewer stops repeat.
        before: Where the step that ends at a stop takes its last stage: at the end itself, at other stops one unit of
            rounding earlier, so that it does not see what the vector field jumps to there; same shape.
        owners: Number of the event that each belongs to, or `NOBODY`; same shape.
    """

    times: Tensor
    before: Tensor
    owners: Tensor


def schedule(t0: Tensor, t1: Tensor, stop_at: Tensor | Sequence[float] | None, events: Sequence[Event]) -> Schedule:
    """Sort all times to stop at.

    Args:
        t0: Start per sample, shape `(batch,)`; detached.
        t1: End per sample.
        stop_at: Times of the user, shape `(stops,)` or `(stops, batch)`.
        events: Those with times of their own are `PresetTimes` and `Periodic`.

    Raises:
        ValueError: If a time is not finite, or the shape is another one.
    """
    times, owners = [], []
    sources = [(NOBODY, "stop_at", stop_at)] if stop_at is not None else []
    sources += [
        (number, "times", event.times if isinstance(event, PresetTimes) else _ticks(event, t0, t1))
        for number, event in enumerate(events)
        if isinstance(event, PresetTimes | Periodic)
    ]
    for owner, name, given in sources:
        rows = _rows(name, given, t0)
        times.append(rows)
        owners.append(torch.full_like(rows, owner, dtype=torch.long))
    if not times:
        ends = t1.unsqueeze(0)
        return Schedule(ends, ends, torch.full_like(ends, NOBODY, dtype=torch.long))
    direction = torch.where(t1 < t0, -1.0, 1.0).to(t0)
    all_times, all_owners = (
        torch.cat([*times, t1.unsqueeze(0)]),
        torch.cat([*owners, torch.full_like(t1, NOBODY, dtype=torch.long).unsqueeze(0)]),
    )
    inside = ((all_times - t0) * direction > 0) & ((t1 - all_times) * direction > 0)
    # Times without effect wait at the end, where a sample stops for good.
    all_times = torch.where(inside, all_times, t1)
    all_owners = torch.where(inside, all_owners, NOBODY)
    order = (all_times * direction).argsort(dim=0, stable=True)
    all_times, all_owners = all_times.gather(0, order), all_owners.gather(0, order)
    used = int(inside.sum(0).max()) + 1
    all_times = all_times[:used]
    before = torch.where(all_times == t1, t1, torch.nextafter(all_times, t0))
    return Schedule(all_times, before, all_owners[:used])


def _rows(name: str, given: Tensor | Sequence[float], like: Tensor) -> Tensor:
    rows = torch.as_tensor(given, dtype=like.dtype, device=like.device).detach()
    if rows.ndim not in (1, 2) or (rows.ndim == 2 and rows.shape[1] != len(like)) or not bool(rows.isfinite().all()):
        raise ValueError(
            f"`{name}` must hold finite times of shape (times,), or (times, {len(like)}) for a batch, got "
            f"{tuple(rows.shape)}{'' if bool(rows.isfinite().all()) else ' with entries that are not finite'}."
        )
    return rows.unsqueeze(-1).expand(-1, len(like)) if rows.ndim == 1 else rows


def _ticks(event: Periodic, t0: Tensor, t1: Tensor) -> Tensor:
    """Return the times of a periodic event, `(times, batch)`; those beyond the end of a sample have no effect."""
    start = t0 if event.start is None else torch.full_like(t0, event.start)
    direction = torch.where(t1 < t0, -1.0, 1.0).to(t0)
    count = ((t1 - start) * direction / event.period).max().clamp(min=0.0)
    if not bool(count < MOST):
        raise ValueError(
            f"`period` = {event.period:g} makes {float(count):.3g} events between start and end, more than {MOST}. "
            "Choose a longer period, or a `DiscreteEvent` after every step."
        )
    number = torch.arange(1, int(count) + 2, dtype=t0.dtype, device=t0.device).unsqueeze(-1)
    return start + number * event.period * direction
