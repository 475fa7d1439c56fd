"""Time counted from the start of a solve, where the precision of the state could not hold it otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ude._typing import State
from ude.compat.call import Call, Event
from ude.compat.callbacks import Callback
from ude.compat.errors import OdeintError
from ude.problems import Solution
from ude.solve.interpolant import Interpolant


@dataclass(frozen=True, slots=True)
class Clock:
    """Between the times of a call and those of its solve.

    The loop keeps time in the precision of the state. For a state in single precision and times far from zero, such as
    calendar years, time is therefore counted from the start; the vector field is told the time itself.

    Args:
        origin: Time at which the solve's time is zero, a constant of shape `()`; None if the two are the same.
    """

    origin: Tensor | None

    @classmethod
    def of(cls, call: Call) -> Clock:
        """Return the clock of a call.

        Times of jumps must stay as they are, to the last digit, and a compiled step knows the user's function only.
        """
        must_stay = call.options.get("jump_t") is not None or call.options.get("engine", "eager") != "eager"
        is_exact = call.y0.real.dtype == torch.float64 or bool(call.t[0] == 0)
        return cls(None if must_stay or is_exact else call.t[0].detach().double())

    def elapsed(self, t: Tensor) -> Tensor:
        """Return times as the solve counts them."""
        return t if self.origin is None else t.double() - self.origin

    def time(self, elapsed: Tensor) -> Tensor:
        """Return times as the user counts them."""
        return elapsed if self.origin is None else elapsed.double() + self.origin

    def call(self, call: Call) -> Call:
        """Return the call with everything that has to do with time counted as the solve does."""
        if self.origin is None:
            return call
        functions = {name: self._callback(function) for name, function in call.callbacks.functions.items()}
        options = dict(call.options)
        if options.get("step_t") is not None:
            options["step_t"] = self.elapsed(torch.as_tensor(options["step_t"]).to(self.origin))
        return replace(
            call,
            field=self.event(call.field),
            t=self.elapsed(call.t),
            options=options,
            callbacks=replace(call.callbacks, functions=functions),
        )

    def solution(self, solution: Solution) -> Solution:
        """Return a solution with its steps and its continuous extension as the user counts times."""
        if self.origin is None:
            return solution
        steps, interpolant = solution.steps, solution.interpolant
        if isinstance(interpolant, Interpolant):
            names = (field.name for field in fields(Interpolant))
            interpolant = _Delayed(clock=self, **{name: getattr(interpolant, name) for name in names})
        return replace(solution, steps=replace(steps, t=self.time(steps.t)), interpolant=interpolant)

    def event(self, function: Event) -> Event:
        """Return a function of time and state as one of the solve's time and the state."""
        return lambda t, y: function(self.time(t).to(y.real.dtype), y)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say in the error of a solve how its times are counted."""
        try:
            yield
        except OdeintError as error:
            if self.origin is None:
                raise
            raise OdeintError(f"{error} (t counts from t[0] = {float(self.origin):.10g}.)", error.solution) from error

    def _callback(self, function: Callback) -> Callback:
        return lambda t, y, dt: function(self.time(t), y, dt)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delayed(Interpolant):
    """A continuous solution asked at the user's times."""

    clock: Clock

    def __call__(self, t: Tensor) -> State:
        """Return the state at `t`."""
        return Interpolant.__call__(self, self.clock.elapsed(t))
