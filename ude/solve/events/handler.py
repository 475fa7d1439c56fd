"""What happens between one attempt and the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.methods.method import Method
from ude.problems import Status
from ude.solve.controllers import Memory
from ude.solve.events.calls import Calls
from ude.solve.events.crossing import Crossing, first_crossing, sign_of
from ude.solve.events.event import (
    ContinuousEvent,
    DiscreteEvent,
    Event,
    ManifoldProjection,
    Periodic,
    PositiveDomain,
    PresetTimes,
    SteadyState,
)
from ude.solve.events.implicit_time import departure, time_shift
from ude.solve.events.projection import project
from ude.solve.events.schedule import NOBODY, Schedule
from ude.solve.events.section import FlatCondition, Rows, Section
from ude.solve.flatten import Layout
from ude.solve.step import RUNNING, Attempt, Point, with_more

STALLED = 20
"""Events in a row without progress in time after which a sample is given up."""

LONGEST = 10.0
"""Most that the first step after an event may be longer than the time since the same event happened before."""


class Happening(NamedTuple):
    """One event of some samples; the others have `which` = -1.

    Args:
        which: Number of the event, shape `(batch,)`.
        t: Its time; on the autograd graph.
        before: State just before, shape `(batch, state)`.
        after: State just after.
    """

    which: Tensor
    t: Tensor
    before: Tensor
    after: Tensor


class Outcome(NamedTuple):
    """What the loop goes on with.

    Args:
        point: Where the integration stands after the events.
        record: The attempt, cut short where an event ended it.
        happenings: The events, in their order.
    """

    point: Point
    record: Attempt
    happenings: tuple[Happening, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """All events of a solve.

    Args:
        events: What the user asked for.
        schedule: Times at which steps must end, and whose they are.
        layout: Between the user's state and `(batch, state)`.
        p: The user's parameters.
        field: Vector field.
        method: Makes the steps.
        differentiate: The result is to carry a gradient.
    """

    events: tuple[Event, ...]
    schedule: Schedule
    layout: Layout
    p: Any
    field: FlatField
    method: Method
    differentiate: bool

    def watch(self, t: Tensor, y: Tensor) -> tuple[Memory, Tensor]:
        """Return what is remembered at the start, and how often each sample's vector field was evaluated to know it.

        To be remembered are signs and times of every event, and events without progress in time.
        """
        conditions = self._conditions()
        signs = [self._sign(condition, t.detach(), y.detach()) for condition in conditions.values()]
        stacked = torch.stack(signs) if signs else t.new_zeros(0, len(t))
        start = t.detach()
        # Only a condition that starts at zero asks where it goes.
        evaluations = (stacked.abs() < 1).sum(0)
        return (stacked, start.expand_as(stacked), start, torch.zeros_like(start)), evaluations

    def violates(self, y: Tensor) -> Tensor:
        """Return where a state has left the domain it is to stay in, shape `(batch,)`."""
        bad = torch.zeros_like(y[:, 0], dtype=torch.bool)
        for event in self.events:
            if isinstance(event, PositiveDomain):
                bad = bad | (y.detach() < -event.tolerance).any(-1)
        return bad

    def after(self, before: Point, following: Point, record: Attempt) -> Outcome:
        """Look for events of an attempt, and apply them."""
        nobody = torch.zeros_like(record.accepted)
        state = _State(following.t, following.y, following, record, nobody, nobody)
        happenings: list[Happening] = []
        conditions = self._conditions()
        if conditions and bool(record.accepted.any()):
            state, happenings = self._continuous(before, state, conditions)
        others = [(number, event) for number, event in enumerate(self.events) if number not in conditions]
        owner = self._owner(before, state) if others else nobody
        for number, event in others:
            state, happening = self._apply(state, number, event, owner == number)
            happenings += [] if happening is None else [happening]
        following = state.point
        if bool(state.fired.any()):
            following = self._restarted(state)
            state = self._counted(state, state.fired * self.method.init_evaluations)
        return Outcome(following, state.record, tuple(happenings))

    # Continuous events

    @property
    def _calls(self) -> Calls:
        return Calls(self.layout, self.p)

    def _conditions(self) -> dict[int, FlatCondition]:
        """Return the conditions of the continuous events as functions of `(batch,)` and `(batch, state)`."""
        return {
            number: self._calls.scalar(f"events[{number}].condition", event.condition)
            for number, event in enumerate(self.events)
            if isinstance(event, ContinuousEvent)
        }

    def _sign(self, condition: FlatCondition, t: Tensor, y: Tensor) -> Tensor:
        """Return the sign of a condition, or half that to which it leaves zero."""
        sign = sign_of(condition(t, y)).detach()
        if bool((sign != 0).all()):
            return sign
        direction = (self.schedule.times[-1] - t).sign()
        return torch.where(sign == 0, departure(condition, t, y, self._rate(t, y), direction), sign)

    def _continuous(
        self, before: Point, state: _State, conditions: dict[int, FlatCondition]
    ) -> tuple[_State, list[Happening]]:
        """Apply the first continuous event of every sample, and remember what its conditions do next."""
        begun, times, *since = before.watch
        events = [event for event in self.events if isinstance(event, ContinuousEvent)]
        section = Section(self.field, self.method, state.record)
        if self.method.dense_evaluations:
            state = self._counted(state, section.evaluations)
        crossing, signs = first_crossing(section, events, list(conditions.values()), begun)
        happenings: list[Happening] = []
        if crossing is not None:
            state, jump = self._cut(before, state, crossing, conditions)
            signs = self._signs_after(begun, signs, crossing, jump, conditions)
            happening = _happening(crossing, jump, state)
            numbers = torch.tensor(list(conditions), device=begun.device).unsqueeze(-1)
            times = torch.where(happening.which == numbers, state.t.detach(), times)
            point, since = _without_stalling(state.point, since, crossing.part.rows)
            state = state._replace(point=point)
            happenings = [happening]
        watch = (torch.where(state.record.accepted, signs, begun), times, *since)
        return state._replace(point=state.point._replace(watch=watch)), happenings

    def _cut(
        self, before: Point, state: _State, crossing: Crossing, conditions: dict[int, FlatCondition]
    ) -> tuple[_State, _Jump]:
        """End the step of the samples that met an event there, and apply it."""
        part, rows, record, point = crossing.part, crossing.part.rows, state.record, state.point
        which = torch.tensor(list(conditions), device=crossing.event.device)[crossing.event]
        extension = part.extension()
        time, on_graph = part.time(crossing.theta), extension(crossing.theta)
        t, left, shift = time, on_graph, None
        if self.differentiate:
            shift = time_shift(crossing, list(conditions.values()), time, on_graph)
        if shift is not None:
            t, left = time + shift, extension(crossing.theta + shift / part.dt)
        # The user's functions are shown the other samples as they stand at the end of the step.
        all_t, all_left = rows.put(t, state.t.detach()), rows.put(left, state.y.detach())
        after, ends = self._affected_rows(which, rows, all_t, all_left, left)
        rate = rows.take(self._rate(all_t, rows.put(after, state.y.detach())))
        start = after
        if shift is not None:
            # The state that would have to start at the fixed time for the flow after the event to be the same.
            start = after - rate * shift.to(after.dtype).unsqueeze(-1)
        status = torch.where(ends, int(Status.TERMINATED), RUNNING).to(point.status.dtype)
        point = point._replace(
            t=rows.put(time, point.t),
            dt=rows.put(_next_step(before, point, crossing, time.detach()), point.dt),
            y=rows.put(start, point.y),
            stop=torch.where(crossing.fired, before.stop, point.stop),
            status=rows.put(status, point.status),
        )
        record = record._replace(t1=rows.put(time, record.t1), y1=rows.put(on_graph, record.y1))
        state = self._counted(_State(point.t, point.y, point, record, crossing.fired, crossing.fired), crossing.fired)
        return state, _Jump(which, t, left, after, rate)

    def _affected_rows(
        self, which: Tensor, rows: Rows, all_t: Tensor, all_left: Tensor, left: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the states of these samples after their events, and whose solve ends there."""
        after, ends = left, torch.zeros_like(which, dtype=torch.bool)
        for number, event in enumerate(self.events):
            if isinstance(event, ContinuousEvent):
                mine = which == number
                if event.affect is not None and bool(mine.any()):
                    jumped = rows.take(self._calls.state(event.affect, all_t, all_left, number))
                    after = torch.where(mine.unsqueeze(-1), jumped, after)
                ends = ends | (mine & event.terminate)
        return after, ends

    @torch.no_grad()
    def _rate(self, t: Tensor, y: Tensor) -> Tensor:
        return self.field(t.detach(), y.detach()).detach()

    @torch.no_grad()
    def _signs_after(
        self, begun: Tensor, ends: Tensor, crossing: Crossing, jump: _Jump, conditions: dict[int, FlatCondition]
    ) -> Tensor:
        """Return the signs to remember: for what has happened, that to which the condition leaves zero."""
        part, rows, signs = crossing.part, crossing.part.rows, []
        t, left, jumped = (x.detach() for x in (jump.t, jump.before, jump.after))
        for row, (number, condition) in enumerate(conditions.items()):
            before, after = part.value(condition, t, left).detach(), part.value(condition, t, jumped).detach()
            start, pending = rows.take(begun[row]), crossing.pending[row]
            # Another event at the same time must still be seen to cross, unless the affect moved it. What had not left
            # zero at the start of a step that is cut there still has to.
            waits = (start.abs() < 1) & (crossing.theta <= part.section.nudge)
            kept = torch.where(waits, start, torch.where(pending != 0, pending, sign_of(before)))
            kept = torch.where((before != after) & (after != 0), sign_of(after), kept)
            # What has happened was put away from zero by the affect, or it leaves zero by itself.
            moved = part.section.nudge * after.abs() > before.abs()
            mine = jump.which == number
            kept = torch.where(mine & moved, sign_of(after), kept)
            if bool((mine & ~moved).any()):
                leaves = departure(partial(part.value, condition), t, jumped, jump.rate, part.dt.sign())
                kept = torch.where(mine & ~moved, leaves, kept)
            signs.append(rows.put(kept, ends[row]))
        return torch.stack(signs)

    # Everything that happens at the end of a step

    def _owner(self, before: Point, state: _State) -> Tensor:
        """Return the number of the event whose time each sample has reached, -1 for none."""
        owners = self.schedule.owners
        arrived = state.record.accepted & (state.point.stop > before.stop) & ~state.fired
        owner = owners.gather(0, before.stop.clamp(max=len(owners) - 1).unsqueeze(0))[0]
        return torch.where(arrived, owner, NOBODY)

    def _apply(self, state: _State, number: int, event: Event, scheduled: Tensor) -> tuple[_State, Happening | None]:
        """Apply one event to the samples it concerns, and say to which it did."""
        free = state.record.accepted & (state.point.status != int(Status.TERMINATED))
        if isinstance(event, PresetTimes | Periodic):
            state, happening = self._affected(state, number, scheduled, event.affect, terminate=False)
            return self._past(state, scheduled), happening
        if isinstance(event, DiscreteEvent):
            condition = self._calls.scalar(f"events[{number}].condition", event.condition)
            hit = free & condition(state.t, state.y.detach()).bool()
            return self._affected(state, number, hit, event.affect, terminate=event.terminate)
        if isinstance(event, SteadyState):
            if not bool(free.any()):
                return state, None
            scale = event.atol + event.rtol * state.y.detach().abs()
            rate = (self.field(state.t, state.y.detach()).detach() / scale).abs().square().mean(-1)
            state = self._counted(state, free)
            return self._affected(state, number, free & (rate <= 1.0), None, terminate=True)
        if isinstance(event, PositiveDomain):
            below = free & (state.y.detach() < 0).any(-1)
            return self._moved(state, below, lambda y: y.clamp(min=0.0)), None
        if isinstance(event, ManifoldProjection):
            residual = self._calls.vector(f"events[{number}].residual", event.residual)
            return self._moved(state, free, lambda y: project(event, residual, state.t, y)), None
        return state, None

    def _affected(
        self, state: _State, number: int, hit: Tensor, affect: Callable[..., Any] | None, *, terminate: bool
    ) -> tuple[_State, Happening | None]:
        if not bool(hit.any()):
            return state, None
        before, after = state.y, state.y
        if affect is not None:
            after = torch.where(hit.unsqueeze(-1), self._calls.state(affect, state.t, before, number), before)
        status = torch.where(hit & terminate, int(Status.TERMINATED), state.point.status)
        point = state.point._replace(y=after, status=status)
        which = torch.where(hit, number, -1)
        happening = Happening(which, torch.where(hit, state.t, torch.nan), before, after)
        return state._replace(y=after, point=point, fired=state.fired | hit), happening

    def _past(self, state: _State, hit: Tensor) -> _State:
        """Go on one unit of rounding later: there the vector field has jumped, on whichever side it counts its time."""
        t = state.point.t
        later = t + (torch.nextafter(t.detach(), self.schedule.times[-1]) - t.detach())
        return state._replace(point=state.point._replace(t=torch.where(hit, later, t)))

    def _moved(self, state: _State, hit: Tensor, move: Callable[[Tensor], Tensor]) -> _State:
        """Correct the state at the end of the step, in what is saved as well."""
        if not bool(hit.any()):
            return state
        y = torch.where(hit.unsqueeze(-1), move(state.y), state.y)
        # Where an event has cut the step, what is saved is the state before it.
        saved = (hit & ~state.cut).unsqueeze(-1)
        record = state.record._replace(y1=torch.where(saved, y, state.record.y1))
        return state._replace(y=y, point=state.point._replace(y=y), record=record, fired=state.fired | hit)

    def _counted(self, state: _State, more: Tensor | int) -> _State:
        """Add evaluations of the vector field, shape `(batch,)`, to those of the attempt."""
        return state._replace(record=with_more(self.method, state.record, more))

    def _restarted(self, state: _State) -> Point:
        """Return the point with what the method carries made anew where the state has jumped."""
        point, rows = state.point, Rows(state.fired)
        fresh = self.method.init(self.field, point.t, point.y)
        carry = tuple(rows.put(rows.take(new), old) for new, old in zip(fresh, point.carry, strict=True))
        status = rows.take(point.status)
        sound = rows.take(point.y.detach()).isfinite().all(-1) | (status != RUNNING)
        status = torch.where(sound, status, int(Status.NON_FINITE))
        return point._replace(carry=carry, status=rows.put(status, point.status))


class _State(NamedTuple):
    """Where the samples stand while events are applied.

    Args:
        t: Time.
        y: State.
        point: What the loop will go on with.
        record: The attempt.
        cut: A continuous event ended the step, shape `(batch,)`.
        fired: The state may have jumped: the method must start again.
    """

    t: Tensor
    y: Tensor
    point: Point
    record: Attempt
    cut: Tensor
    fired: Tensor


class _Jump(NamedTuple):
    """What continuous events did to the samples that had one.

    Args:
        which: Number of the event, shape `(rows,)`.
        t: Its time; on the autograd graph.
        before: State just before, shape `(rows, state)`.
        after: State just after.
        rate: How the state goes on changing, without gradient.
    """

    which: Tensor
    t: Tensor
    before: Tensor
    after: Tensor
    rate: Tensor


def _happening(crossing: Crossing, jump: _Jump, state: _State) -> Happening:
    """Return the same for the whole batch."""
    put, y = crossing.part.rows.put, state.y.detach()
    which, t = torch.full_like(state.point.stop, -1), torch.full_like(state.t, torch.nan)
    return Happening(put(jump.which, which), put(jump.t, t), put(jump.before, y), put(jump.after, y))


def _next_step(before: Point, point: Point, crossing: Crossing, now: Tensor) -> Tensor:
    """Return the next step of the samples that met an event; the same one may happen again soon, and be overlooked."""
    rows = crossing.part.rows
    previous = rows.take(before.watch[1], 1).gather(0, crossing.event.unsqueeze(0))[0]
    dt = rows.take(point.dt)
    resolution = 100 * torch.finfo(now.dtype).eps * torch.maximum(now.abs(), dt.abs())
    longest = torch.maximum(LONGEST * (now - previous).abs(), resolution)
    return torch.copysign(torch.minimum(dt.abs(), longest), dt)


def _without_stalling(following: Point, since: list[Tensor], rows: Rows) -> tuple[Point, list[Tensor]]:
    """Give up those of the samples with an event whose events follow one another without progress in time."""
    last, count = map(rows.take, since)
    now, status = rows.take(following.t.detach()), rows.take(following.status)
    resolution = 10 * torch.finfo(now.dtype).eps * now.abs()
    count = torch.where((now - last).abs() <= resolution, count + 1, 0.0)
    stalled = (count >= STALLED) & (status == RUNNING)
    status = torch.where(stalled, int(Status.EVENTS_STALLED), status)
    following = following._replace(status=rows.put(status, following.status))
    return following, [rows.put(new, old) for new, old in zip((now, count), since, strict=True)]
