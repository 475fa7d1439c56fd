"""Steps as torchdiffeq's callbacks tell of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ude.regularize.reservoir import Reservoir

TellStep: TypeAlias = Callable[[Tensor, Any, Tensor], object]
"""`callback(t0, y0, dt)`."""

TRIED, TAKEN, THROWN = "callback_step", "callback_accept_step", "callback_reject_step"
"""torchdiffeq's names of its callbacks: before every step, and after it, where steps can be rejected."""


@dataclass(slots=True)
class ToldStep:
    """A step that was taken.

    Args:
        t: Its start, as the user counts times.
        y: State there, in the user's form; on the autograd graph if the solve was.
        dt: Its length, positive in both directions of time.
        following: Length of the step tried next; None after the last one.
    """

    t: Tensor
    y: Any
    dt: Tensor
    following: Tensor | None = None

    def ends_at(self, t: Tensor) -> int:
        """Return 1 or -1, the direction of time in which the step ends at a time, or 0 if it does not."""
        start, length, end = float(self.t), float(self.dt), float(t.detach())
        # An end that was prescribed is not the start plus the length to the last digit.
        rounding = 8 * torch.finfo(self.t.dtype).eps * (abs(start) + length)
        for sign in (1, -1):
            if abs(start + sign * length - end) <= min(rounding, 0.01 * length):
                return sign
        return 0


@dataclass(slots=True)
class ToldSolve:
    """A solve.

    Args:
        drawn: Some of its steps.
        last: The last step taken.
        sign: Direction of time; 0 while only one step is known.
    """

    drawn: Reservoir[ToldStep]
    last: ToldStep | None = None
    sign: int = 0

    def goes_on_at(self, t: Tensor) -> bool:
        """Return whether a step that starts at a time belongs to this solve."""
        if self.last is None:
            return True  # nothing was taken yet: the first step is tried again
        sign = self.last.ends_at(t)
        return sign != 0 and self.sign in (0, sign)

    def ends_after(self, step: ToldStep) -> bool:
        """Return whether the step tried after this one was to reach the end of the solve."""
        if step.following is None or self.last is None:
            return False
        covered, needed = float(step.dt + step.following), abs(float(self.last.t - step.t)) + float(self.last.dt)
        return covered >= needed * (1.0 - 1e-6)


@dataclass(slots=True)
class Listener:
    """Listens to the callbacks of solves.

    Args:
        samples: Steps to keep of each solve; None for all.
        generator: Source of randomness.
        controls: The solver chooses its steps, and says what became of them.
        others: Callbacks of the user's, by their names; they are called first.
        solves: What was heard.
        tried: How many steps were begun.
        taken: How many were taken.
        thrown: How many were thrown away.
        tried_again: One was begun again although the solver is not one that chooses its steps.
    """

    samples: int | None
    generator: torch.Generator | None
    controls: bool
    others: dict[str, TellStep] = field(default_factory=dict)
    solves: list[ToldSolve] = field(default_factory=list)
    tried: int = 0
    taken: int = 0
    thrown: int = 0
    tried_again: bool = False

    def step(self, t: Tensor, y: Any, dt: Tensor) -> None:
        """Hear of a step that is about to be made."""
        self._tell_others(TRIED, t, y, dt)
        self.tried += 1
        if not self.controls and self._is_repeated(t, y, dt):
            self.tried_again = True
        if not self.solves or not self.solves[-1].goes_on_at(t):
            self.solves.append(ToldSolve(Reservoir(self.samples, self.generator)))
        solve = self.solves[-1]
        if solve.last is not None:
            solve.sign = solve.last.ends_at(t)
            if solve.last.following is None:  # else this is another try
                solve.last.following = dt.detach()
        if not self.controls:
            self._take(t, y, dt)

    def accept(self, t: Tensor, y: Any, dt: Tensor) -> None:
        """Hear that a step was taken."""
        self._tell_others(TAKEN, t, y, dt)
        self._take(t, y, dt)

    def reject(self, t: Tensor, y: Any, dt: Tensor) -> None:
        """Hear that a step was thrown away."""
        self._tell_others(THROWN, t, y, dt)
        self.thrown += 1

    def callbacks(self) -> dict[str, TellStep]:
        """Return the callbacks to set, by their names."""
        every: dict[str, TellStep] = {TRIED: self.step}
        return {**every, TAKEN: self.accept, THROWN: self.reject} if self.controls else every

    def sign_of(self, solve: ToldSolve) -> int:
        """Return the direction of time of a solve; of a single step, that of the other solves, or forward."""
        known = [one.sign for one in self.solves if one.sign]
        return solve.sign or (known[-1] if known else 1)

    def _is_repeated(self, t: Tensor, y: Any, dt: Tensor) -> bool:
        """Return whether the last step is begun again with another length, as only a rejected one is."""
        last = self.solves[-1].last if self.solves else None
        if last is None or bool(last.t != t) or bool(last.dt == dt):
            return False
        pairs = zip(
            (y,) if isinstance(y, Tensor) else y, (last.y,) if isinstance(last.y, Tensor) else last.y, strict=True
        )
        return all(torch.equal(one, other) for one, other in pairs)

    def _take(self, t: Tensor, y: Any, dt: Tensor) -> None:
        self.taken += 1
        step = ToldStep(t.detach(), y, dt.detach())
        self.solves[-1].last = step
        self.solves[-1].drawn.offer(step)

    def _tell_others(self, name: str, t: Tensor, y: Any, dt: Tensor) -> None:
        if name in self.others:
            self.others[name](t, y, dt)
