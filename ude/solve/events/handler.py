"""What happens between one attempt and the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude._typing import FlatField
from ude.methods.method import Method
from ude.problems import Status
from ude.solve.controllers import Memory
from ude.solve.events.crossing import Crossing, Section, first_crossing, sign_of
from ude.solve.events.event import (
    ContinuousEvent,
    DiscreteEvent,
    Event,
    ManifoldProjection,
    Periodic,
    PositiveDomain,
    PresetTimes,
    SteadyState,
    arguments,
)
from ude.solve.events.implicit_time import departure, time_shift
from ude.solve.events.projection import project
from ude.solve.events.schedule import Schedule
from ude.solve.flatten import Layout
from ude.solve.step import RUNNING, Attempt, Point

STALLED = 20
"""Events in a row without progress in time after which a sample is given up."""

LONGEST = 10.0
"""Most that the first step after an event may be longer than the time since the same event happened before."""

MOVED = 1e6
"""How much larger than the rounding left at a zero a condition must be to have been put away from it."""


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

    def watch(self, t: Tensor, y: Tensor) -> Memory:
        """Return what is remembered at the start: signs and times of every event, events without progress in time."""
        conditions = self._conditions()
        signs = [self._sign(condition, t.detach(), y.detach()) for condition in conditions.values()]
        stacked = torch.stack(signs) if signs else t.new_zeros(0, len(t))
        start = t.detach()
        return stacked, start.expand_as(stacked), start, torch.zeros_like(start)

    def violates(self, y: Tensor) -> Tensor:
        """Return where a state has left the domain it is to stay in, shape `(batch,)`."""
        bad = torch.zeros_like(y[:, 0], dtype=torch.bool)
        for event in self.events:
            if isinstance(event, PositiveDomain):
                bad = bad | (y.detach() < -event.tolerance).any(-1)
        return bad

    def after(self, before: Point, following: Point, record: Attempt) -> Outcome:
        """Look for events of an attempt, and apply them."""
        signs, times, *since = before.watch
        nobody = torch.zeros_like(record.accepted)
        state = _State(following.t, following.y, following, record, nobody, nobody)
        happenings: list[Happening] = []
        crossing = self._crossing(record, signs)
        if crossing is not None:
            signs = crossing.signs
            if bool(crossing.fired.any()):
                state, happening = self._cut(before, state, crossing)
                signs = self._signs_after(before.watch[0], crossing, happening)
                mine = torch.arange(len(signs), device=signs.device).unsqueeze(-1) == crossing.event
                times = torch.where(crossing.fired & mine, state.t.detach(), times)
                happenings.append(happening)
        arrived = record.accepted & (following.stop > before.stop) & ~state.fired
        owner = self.schedule.owners.gather(0, before.stop.clamp(max=len(self.schedule.owners) - 1).unsqueeze(0))[0]
        for number, event in enumerate(self.events):
            state, happening = self._apply(state, number, event, arrived & (owner == number))
            happenings += [] if happening is None else [happening]
        following = state.point
        if bool(state.fired.any()):
            following = self._restarted(state)
        # Events at known times move on with their schedule.
        cut = crossing.fired if crossing is not None else nobody
        following, since = _without_stalling(following, since, cut)
        watch = (torch.where(record.accepted, signs, before.watch[0]), times, *since)
        return Outcome(following._replace(watch=watch), state.record, tuple(happenings))

    # Continuous events

    def _conditions(self) -> dict[int, Callable[[Tensor, Tensor], Tensor]]:
        """Return the conditions of the continuous events as functions of `(batch,)` and `(batch, state)`."""
        return {
            number: self._scalar(f"events[{number}].condition", event.condition)
            for number, event in enumerate(self.events)
            if isinstance(event, ContinuousEvent)
        }

    def _sign(self, condition: Callable[[Tensor, Tensor], Tensor], t: Tensor, y: Tensor) -> Tensor:
        """Return the sign of a condition, or half that to which it leaves zero."""
        sign = sign_of(condition(t, y)).detach()
        if bool((sign != 0).all()):
            return sign
        direction = (self.schedule.times[-1] - t).sign()
        return torch.where(sign == 0, departure(condition, self.field, t, y, direction), sign)

    def _crossing(self, record: Attempt, signs: Tensor) -> Crossing | None:
        conditions = self._conditions()
        if not conditions or not bool(record.accepted.any()):
            return None
        section = Section(self.field, self.method, record)
        events = [event for event in self.events if isinstance(event, ContinuousEvent)]
        return first_crossing(section, events, list(conditions.values()), signs)

    def _cut(self, before: Point, state: _State, crossing: Crossing) -> tuple[_State, Happening]:
        """End the step of the samples that met an event there."""
        fired, conditions = crossing.fired, self._conditions()
        numbers = torch.tensor(list(conditions), device=fired.device)
        which = torch.where(fired, numbers[crossing.event], -1)
        time, on_graph = crossing.section.time(crossing.theta), crossing.section.state(crossing.theta)
        shift = None
        if self.differentiate:
            shift = time_shift(crossing, list(conditions.values()))
            theta = crossing.theta + shift / torch.where(fired, state.record.dt, 1.0)
            left = crossing.section.state(theta)
        else:
            left = on_graph
        t = time if shift is None else time + shift
        after, ends = left, torch.zeros_like(fired)
        for number in conditions:
            event = self.events[number]
            assert isinstance(event, ContinuousEvent)
            mine = which == number
            if event.affect is not None and bool(mine.any()):
                after = torch.where(mine.unsqueeze(-1), self._state(event.affect, t, left, number), after)
            ends = ends | (mine & event.terminate)
        start = after
        if shift is not None:
            # The state that would have to start at the fixed time for the flow after the event to be the same.
            rate = self.field(time, after.detach()).detach()
            start = after - rate * shift.to(after.dtype).unsqueeze(-1)
        column = fired.unsqueeze(-1)
        record = state.record._replace(
            t1=torch.where(fired, time, state.record.t1), y1=torch.where(column, on_graph, state.record.y1)
        )
        status = torch.where(fired, torch.where(ends, int(Status.TERMINATED), RUNNING), state.point.status)
        # The same event may happen again soon: the next step must not be so long that it is overlooked.
        previous = before.watch[1].gather(0, crossing.event.unsqueeze(0))[0]
        now, proposed = time.detach(), state.point.dt.abs()
        resolution = 100 * torch.finfo(now.dtype).eps * torch.maximum(now.abs(), proposed)
        longest = torch.maximum(LONGEST * (now - previous).abs(), resolution)
        dt = torch.copysign(torch.minimum(proposed, longest), state.point.dt)
        point = state.point._replace(
            t=torch.where(fired, time, state.point.t),
            dt=torch.where(fired, dt, state.point.dt),
            y=torch.where(column, start, state.point.y),
            stop=torch.where(fired, before.stop, state.point.stop),
            status=status,
        )
        happening = Happening(which, torch.where(fired, t, torch.nan), left, after)
        return _State(point.t, point.y, point, record, fired, fired), happening

    def _signs_after(self, begun: Tensor, crossing: Crossing, happening: Happening) -> Tensor:
        """Return the signs to remember: for what has happened, that to which the condition leaves zero."""
        fired, t, direction = crossing.fired, happening.t.detach(), crossing.section.record.dt.sign()
        signs = []
        for row, (number, condition) in enumerate(self._conditions().items()):
            before, after = (condition(t, y.detach()).detach() for y in (happening.before, happening.after))
            pending = crossing.pending[row]
            # Another event at the same time must still be seen to cross, unless the affect moved it. What had not left
            # zero at the start of a step that is cut there still has to.
            waits = (begun[row].abs() < 1) & (crossing.theta <= crossing.section.nudge)
            kept = torch.where(waits, begun[row], torch.where(pending != 0, pending, sign_of(before)))
            kept = torch.where((before != after) & (after != 0), sign_of(after), kept)
            mine = happening.which == number
            if bool(mine.any()):
                # The state was put away from zero, or it leaves zero by itself.
                moved = after.abs() > MOVED * before.abs()
                leaves = departure(condition, self.field, torch.where(fired, t, 0.0), happening.after, direction)
                kept = torch.where(mine, torch.where(moved, sign_of(after), leaves), kept)
            signs.append(torch.where(fired, kept, crossing.signs[row]))
        return torch.stack(signs)

    # Everything that happens at the end of a step

    def _apply(self, state: _State, number: int, event: Event, scheduled: Tensor) -> tuple[_State, Happening | None]:
        """Apply one event to the samples it concerns, and say to which it did."""
        free = state.record.accepted & (state.point.status != int(Status.TERMINATED))
        if isinstance(event, PresetTimes | Periodic):
            state, happening = self._affected(state, number, scheduled, event.affect, terminate=False)
            return self._past(state, scheduled), happening
        if isinstance(event, DiscreteEvent):
            condition = self._scalar(f"events[{number}].condition", event.condition)
            hit = free & condition(state.t, state.y.detach()).bool()
            return self._affected(state, number, hit, event.affect, terminate=event.terminate)
        if isinstance(event, SteadyState):
            scale = event.atol + event.rtol * state.y.detach().abs()
            rate = (self.field(state.t, state.y.detach()).detach() / scale).abs().square().mean(-1)
            return self._affected(state, number, free & (rate <= 1.0), None, terminate=True)
        if isinstance(event, PositiveDomain):
            below = free & (state.y.detach() < 0).any(-1)
            return self._moved(state, below, lambda y: y.clamp(min=0.0)), None
        if isinstance(event, ManifoldProjection):
            residual = self._vector(f"events[{number}].residual", event.residual)
            return self._moved(state, free, lambda y: project(event, residual, state.t, y)), None
        return state, None

    def _affected(
        self, state: _State, number: int, hit: Tensor, affect: Callable[..., Any] | None, *, terminate: bool
    ) -> tuple[_State, Happening | None]:
        if not bool(hit.any()):
            return state, None
        before, after = state.y, state.y
        if affect is not None:
            after = torch.where(hit.unsqueeze(-1), self._state(affect, state.t, before, number), before)
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

    def _restarted(self, state: _State) -> Point:
        """Return the point with what the method carries made anew where the state has jumped."""
        point = state.point
        fresh = self.method.init(self.field, point.t, point.y)
        carry = tuple(
            torch.where(state.fired.reshape(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(fresh, point.carry, strict=True)
        )
        sound = point.y.detach().isfinite().all(-1) | ~state.fired
        status = torch.where(sound | (point.status != RUNNING), point.status, int(Status.NON_FINITE))
        return point._replace(carry=carry, status=status)

    # The user's functions

    def _scalar(self, name: str, function: Callable[..., Any]) -> Callable[[Tensor, Tensor], Tensor]:
        def flat(t: Tensor, y: Tensor) -> Tensor:
            value = function(*arguments(self.layout.time(t), self.layout.unflatten(y), self.p))
            if not isinstance(value, Tensor) or value.numel() != len(t):
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"`{name}` must return a tensor with one number per sample, {len(t)} in all, got {got}."
                )
            return value.reshape(len(t))

        return flat

    def _vector(self, name: str, function: Callable[..., Any]) -> Callable[[Tensor, Tensor], Tensor]:
        def flat(t: Tensor, y: Tensor) -> Tensor:
            value = function(*arguments(self.layout.time(t), self.layout.unflatten(y), self.p))
            if value.ndim == 0 or (self.layout.batched and value.shape[0] != len(t)):
                raise ValueError(
                    f"`{name}` must return residuals of shape (residuals,), or (batch, residuals) with `batched=True`, "
                    f"got {tuple(value.shape)}."
                )
            return value.reshape(len(t), -1)

        return flat

    def _state(self, affect: Callable[..., Any], t: Tensor, y: Tensor, number: int) -> Tensor:
        given = self.layout.unflatten(y)
        after = affect(*arguments(self.layout.time(t), given, self.p))
        wanted, got = _description(given), _description(after)
        if wanted != got:
            raise ValueError(
                f"`events[{number}].affect` must return a state like the one it gets, {wanted}, got {got}."
            )
        return self.layout.flatten(after)


def _description(state: Any) -> str:
    leaves, spec = pytree.tree_flatten(state)
    kinds = ", ".join(f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__ for x in leaves)
    return kinds if isinstance(state, Tensor) else f"{kinds} in {pytree.treespec_pprint(spec)}"


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


def _without_stalling(following: Point, since: list[Tensor], fired: Tensor) -> tuple[Point, list[Tensor]]:
    """Give up samples whose continuous events, those that `fired`, follow one another without progress in time."""
    last, count = since
    now = following.t.detach()
    resolution = 10 * torch.finfo(now.dtype).eps * now.abs()
    close = (now - last).abs() <= resolution
    count = torch.where(fired, torch.where(close, count + 1, 0.0), count)
    stalled = (count >= STALLED) & (following.status == RUNNING)
    status = torch.where(stalled, int(Status.EVENTS_STALLED), following.status)
    return following._replace(status=status), [torch.where(fired, now, last), count]
