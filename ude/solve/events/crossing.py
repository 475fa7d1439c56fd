"""Where in a step a condition is zero, for every sample at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ude.solve.events.event import ContinuousEvent
from ude.solve.events.root import Bracket, last_before_zero
from ude.solve.events.section import Along, FlatCondition, Part, Rows, Section


class Crossing(NamedTuple):
    """The first event in a step of those samples that have one.

    Args:
        part: The step, for the samples that have an event.
        fired: These samples, shape `(batch,)`.
        event: Its number among the continuous events, shape `(rows,)`.
        theta: Where, as a fraction of the step, shape `(rows,)`.
        pending: Signs before a crossing of their own that begins no later than `theta`, zero where there is none;
            shape `(events, rows)`.
    """

    part: Part
    fired: Tensor
    event: Tensor
    theta: Tensor
    pending: Tensor


class _Change(NamedTuple):
    """The samples in which one condition has a zero, and the first of these."""

    number: int
    part: Part
    theta: Tensor
    low: Tensor
    sign: Tensor


def sign_of(value: Tensor) -> Tensor:
    """Return -1, 0 or 1; 0 for a condition that is NaN."""
    return torch.nan_to_num(value.sign(), nan=0.0)


@torch.no_grad()
def first_crossing(
    section: Section, events: Sequence[ContinuousEvent], conditions: Sequence[FlatCondition], signs: Tensor
) -> tuple[Crossing | None, Tensor]:
    """Find the first zero of every condition in a step, and the first of these.

    Args:
        section: The step.
        events: The continuous events.
        conditions: Their conditions.
        signs: Signs at the start of the step, shape `(events, batch)`; where a condition has not left zero yet, half
            the sign that it leaves for, or zero if that is not known.

    Returns:
        The crossing, None if no sample has one, and the signs at the end of the step, zero where none was seen yet.
    """
    nudge = section.nudge if bool((signs.abs() < 1).any()) else None
    places = _places(max(event.interior for event in events), nudge)
    states, grid = section.known_states(places), section.record.dt.new_tensor([0.0, *places, 1.0])
    changes, ends = [], []
    for number, (event, condition, start) in enumerate(zip(events, conditions, signs, strict=True)):
        values = section.look(condition, places, states).to(start.dtype)
        change, end = _change(section, number, event, condition, grid, values, start)
        ends.append(end)
        if change is not None:
            changes.append(change)
    return _first(section, changes, len(events)) if changes else None, torch.stack(ends)


def _places(interior: int, nudge: float | None) -> list[float]:
    """Return the fractions inside of the step at which signs are looked at."""
    inside = [k / (interior + 1) for k in range(1, interior + 1)]
    return inside if nudge is None else [nudge, *inside]


def _change(
    section: Section,
    number: int,
    event: ContinuousEvent,
    condition: FlatCondition,
    grid: Tensor,
    values: Tensor,
    start: Tensor,
) -> tuple[_Change | None, Tensor]:
    """Return the first zeros of one condition, given its values on the grid, and its signs at the end of the step."""
    # Neither the least nor the largest value of most samples has another sign than the start.
    later, stays = values[1:], start.sign()
    moved = section.record.accepted & ((later.amin(0).sign() != stays) | (later.amax(0).sign() != stays))
    rows = Rows(moved)
    if not rows.count:
        return None, stays
    found, sign, bracket, end = _first_change(grid, rows.take(values, 1), rows.take(stays), event.direction)
    end = rows.put(end, stays)
    within, rows = Rows(found), Rows(rows.put(found, moved))
    if not rows.count:
        return None, end
    sign, bracket, fresh = within.take(sign), Bracket(*map(within.take, bracket)), rows.take(start).abs() < 1
    part = Part(section, rows)
    return _Change(number, part, _zero(part, condition, bracket, fresh), bracket.low, sign), end


def _first_change(
    grid: Tensor, values: Tensor, start: Tensor, direction: int
) -> tuple[Tensor, Tensor, Bracket, Tensor]:
    """Return where signs change in the direction wanted, the sign before and the place, and signs at the end.

    Args:
        grid: Fractions of the step.
        values: The condition there, shape `(grid, rows)`.
        start: Signs at the start, which may be remembered from before, shape `(rows,)`.
        direction: Of the event.
    """
    signs = torch.cat([start.unsqueeze(0), sign_of(values[1:])])
    number = torch.arange(len(signs), device=signs.device).unsqueeze(-1)
    last, kept = number.expand_as(signs), signs
    if not bool(signs.all()):
        # A condition that is zero keeps the sign it had last, and the place where it had it.
        last = torch.where(signs != 0, number, 0).cummax(0).values
        kept = signs.gather(0, last)
    before, seen = kept[:-1], signs[1:]
    changes = (before != 0) & (seen != 0) & (seen != before) & (before * direction <= 0)
    # The first change counts most; `argmax` is seven times as slow.
    most = (changes * number[1:].flip(0)).amax(0, keepdim=True)
    first = torch.where(most > 0, len(seen) - most, 0)
    low, high = last.gather(0, first), first + 1
    aside = torch.where(high < len(seen), high + 1, (low - 1).clamp(min=0))
    places = [grid[index[0]] for index in (low, high, aside)]
    bracket = Bracket(*places, *(values.gather(0, index)[0] for index in (low, high, aside)))
    return most[0] > 0, before.gather(0, first)[0], bracket, kept[-1]


def _zero(part: Part, condition: FlatCondition, bracket: Bracket, fresh: Tensor) -> Tensor:
    """Return the zero in each bracket, the side on which the condition has not changed sign yet."""
    # An event whose sign was remembered from before a jump may have crossed at the very start: it is found there.
    # One that leaves zero and has come back before it is first looked at: its other zero is the end of the bracket.
    at_once = fresh & (bracket.low == 0)
    bracket = bracket._replace(at_low=torch.where(at_once, 0.0, bracket.at_low))
    return torch.where(at_once, bracket.high, last_before_zero(Along(part, condition), bracket))


def _first(section: Section, changes: Sequence[_Change], events: int) -> Crossing:
    """Return the first of the zeros that several conditions have."""
    if len(changes) == 1:
        number, part, theta, _, sign = changes[0]
        pending = theta.new_zeros(events, len(theta))
        pending[number] = sign
        fired = part.rows.put(torch.ones_like(theta, dtype=torch.bool), torch.zeros_like(section.record.accepted))
        return Crossing(part, fired, torch.full_like(theta, number, dtype=torch.long), theta, pending)
    like = section.record.dt
    thetas, lows = like.new_full((2, events, len(like)), torch.inf)
    signs = torch.zeros_like(thetas)
    for number, part, theta, low, sign in changes:
        for whole, rows in ((thetas, theta), (lows, low), (signs, sign)):
            whole[number] = part.rows.put(rows, whole[number])
    theta, event = thetas.min(0)
    fired = theta.isfinite()
    rows = Rows(fired)
    pending = rows.take(torch.where(lows <= theta, signs, 0.0), 1)
    return Crossing(Part(section, rows), fired, rows.take(event), rows.take(theta), pending)
