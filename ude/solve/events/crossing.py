"""Where in a step a condition is zero, for every sample at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.methods.method import Method, StepResult
from ude.solve.events.event import ContinuousEvent
from ude.solve.step import Attempt

FlatCondition = Callable[[Tensor, Tensor], Tensor]

MOST_ITERATIONS = 100


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
        self.record, self.method = record, method
        # A condition at zero is looked at again as soon as it has left zero by more than rounding.
        self.nudge = torch.finfo(record.dt.dtype).eps ** 0.4
        self.stages = torch.stack(stages)
        self.known = self.stages.detach()

    def time(self, theta: Tensor) -> Tensor:
        """Return times for fractions of shape `(batch,)`; on the autograd graph only through the start time."""
        return self.record.t + theta * self.record.dt

    def state(self, theta: Tensor) -> Tensor:
        """Return states for fractions of shape `(batch,)`, on the autograd graph."""
        return self._state(theta, self.record.y0, self.stages)

    def known_state(self, theta: Tensor) -> Tensor:
        """Return the same without gradient."""
        return self._state(theta, self.record.y0.detach(), self.known)

    def known_states(self, thetas: Sequence[float]) -> Tensor:
        """Return states at fractions that all samples share, shape `(thetas, batch, state)`, without gradient."""
        dt = self.record.dt
        weights = self.method.dense_weights(torch.tensor(thetas, dtype=dt.dtype, device=dt.device))
        slopes = torch.tensordot(weights.T.to(self.known.dtype), self.known, 1)
        return torch.addcmul(self.record.y0.detach(), dt.to(slopes.dtype).unsqueeze(-1), slopes)

    def _state(self, theta: Tensor, y0: Tensor, stages: Tensor) -> Tensor:
        weights = self.method.dense_weights(theta) * self.record.dt
        return y0 + (weights.to(y0.dtype).unsqueeze(-1) * stages).sum(0)


class Crossing(NamedTuple):
    """The first event of every sample in a step.

    Args:
        section: The step.
        fired: A sample has one, shape `(batch,)`.
        event: Its number among the continuous events, shape `(batch,)`.
        theta: Where, as a fraction of the step.
        signs: Signs at the end of the step, shape `(events, batch)`; zero where none was seen yet.
        pending: Signs before a crossing of their own that begins no later than `theta`, zero where there is none.
    """

    section: Section
    fired: Tensor
    event: Tensor
    theta: Tensor
    signs: Tensor
    pending: Tensor


class _Bracket(NamedTuple):
    """Where the sign of one event has changed first, between two fractions of the step; the sign before."""

    found: Tensor
    low: Tensor
    high: Tensor
    sign: Tensor


def sign_of(value: Tensor) -> Tensor:
    """Return -1, 0 or 1; 0 for a condition that is NaN."""
    return torch.nan_to_num(value.sign(), nan=0.0)


@torch.no_grad()
def first_crossing(
    section: Section, events: Sequence[ContinuousEvent], conditions: Sequence[FlatCondition], signs: Tensor
) -> Crossing:
    """Find the first zero of every condition in a step, and the first of these.

    Args:
        section: The step.
        events: The continuous events.
        conditions: Their conditions.
        signs: Signs at the start of the step, shape `(events, batch)`; where a condition has not left zero yet, half
            the sign that it leaves for, or zero if that is not known.
    """
    accepted, record = section.record.accepted, section.record
    nudge = section.nudge if bool((signs.abs() < 1).any()) else None
    grid = _grid(max(event.interior for event in events), nudge)
    thetas = [torch.full_like(record.dt, theta) for theta in grid]
    states = [*section.known_states(grid[:-1]), record.y1.detach()]
    ts = [*map(section.time, thetas[:-1]), record.t1]
    brackets, ends = [], []
    for event, condition, start in zip(events, conditions, signs, strict=True):
        values = [sign_of(condition(t, y)) for t, y in zip(ts, states, strict=True)]
        bracket, end = _first_change(thetas, values, start, event.direction)
        brackets.append(bracket._replace(found=bracket.found & accepted))
        ends.append(end)
    theta, event = torch.stack(
        [
            torch.where(bracket.found, _root(section, condition, bracket, start.abs() < 1), torch.inf)
            if bool(bracket.found.any())
            else torch.full_like(record.dt, torch.inf)
            for bracket, condition, start in zip(brackets, conditions, signs, strict=True)
        ]
    ).min(0)
    fired = theta.isfinite()
    return Crossing(
        section=section,
        fired=fired,
        event=event,
        theta=torch.where(fired, theta, 0.0),
        signs=torch.stack(ends),
        pending=torch.stack([torch.where(b.found & (b.low <= theta), b.sign, 0.0) for b in brackets]),
    )


def _grid(interior: int, nudge: float | None) -> list[float]:
    """Return the fractions of the step at which signs are looked at, the last one its end."""
    inside = [k / (interior + 1) for k in range(1, interior + 1)]
    return [*([] if nudge is None else [nudge]), *inside, 1.0]


def _first_change(
    thetas: Sequence[Tensor], values: Sequence[Tensor], start: Tensor, direction: int
) -> tuple[_Bracket, Tensor]:
    """Return where the sign first changes in the direction wanted, and the sign at the end of the step."""
    sign, left = start.sign(), torch.zeros_like(start)
    found = torch.zeros_like(start, dtype=torch.bool)
    bracket = _Bracket(found, left, left, start)
    for theta, value in zip(thetas, values, strict=True):
        changes = (sign != 0) & (value != 0) & (value != sign)
        hit = changes & (sign * direction <= 0) & ~bracket.found
        bracket = _Bracket(
            found=bracket.found | hit,
            low=torch.where(hit, left, bracket.low),
            high=torch.where(hit, theta, bracket.high),
            sign=torch.where(hit, sign, bracket.sign),
        )
        sign, left = torch.where(value != 0, value, sign), torch.where(value != 0, theta, left)
    return bracket, sign


def _root(section: Section, condition: FlatCondition, bracket: _Bracket, fresh: Tensor) -> Tensor:
    r"""Return the zero between two fractions of the step, the side on which the condition has not changed sign yet.

    Inverse quadratic interpolation where three points allow it, else bisection; some eight evaluations.

    Reference:
        Chandrupatla (1997), A new hybrid quadratic/bisection algorithm for finding the zero of a nonlinear function
        without using derivatives, Adv. Eng. Softw. 28(3), 145-149.
    """
    # The newest point is a, the zero lies between a and b, and c is the point before.
    a, b = bracket.high, bracket.low
    at_a, at_b = _value(section, condition, a), _value(section, condition, b)
    before = at_b.sign()
    # An event whose sign was remembered from before a jump may have crossed at the very start.
    at_start = before == at_a.sign()
    # One that leaves zero and has come back before it is first looked at: its other zero is the end of the bracket.
    at_once = fresh & (bracket.low == 0)
    left, share = bracket.low, torch.full_like(a, 0.5)
    resolution = 2 * torch.finfo(a.dtype).eps
    for _ in range(MOST_ITERATIONS):
        middle = a + share * (b - a)
        value = _value(section, condition, middle)
        not_yet = (value.sign() == before) | (value == 0)
        left = torch.where(not_yet & (middle > left), middle, left)
        same = value.sign() == at_a.sign()
        c, at_c = torch.where(same, a, b), torch.where(same, at_a, at_b)
        b, at_b = torch.where(same, b, a), torch.where(same, at_b, at_a)
        a, at_a = middle, value
        least = resolution * torch.maximum(a, b) / (b - a).abs()
        done = ~bracket.found | at_start | at_once | (least > 0.5) | (at_a == 0) | (at_b == 0)
        if bool(done.all()):
            break
        share = torch.where(
            _bends_little(a, b, c, at_a, at_b, at_c), _inverse_quadratic(a, b, c, at_a, at_b, at_c), 0.5
        )
        # At least the resolution away from either side, so that the bracket closes around the zero.
        share = torch.where(done, 0.0, torch.minimum(torch.maximum(share, least), 1.0 - least))
    return torch.where(at_once, bracket.high, torch.where(at_start, bracket.low, left))


def _bends_little(a: Tensor, b: Tensor, c: Tensor, at_a: Tensor, at_b: Tensor, at_c: Tensor) -> Tensor:
    """Whether the inverse function through three points is monotone between them."""
    place, height = (a - b) / (c - b), (at_a - at_b) / (at_c - at_b)
    return (height.square() < place) & ((1 - height).square() < 1 - place)


def _inverse_quadratic(a: Tensor, b: Tensor, c: Tensor, at_a: Tensor, at_b: Tensor, at_c: Tensor) -> Tensor:
    """Return where the inverse function through three points says zero is, as a share of the way from a to b."""
    first = at_a / (at_b - at_a) * at_c / (at_b - at_c)
    return first + (c - a) / (b - a) * at_a / (at_c - at_a) * at_b / (at_c - at_b)


def _value(section: Section, condition: FlatCondition, theta: Tensor) -> Tensor:
    return condition(section.time(theta), section.known_state(theta)).to(theta.dtype)
