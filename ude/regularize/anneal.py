"""The weight of a cost in the course of a training."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

from ude.regularize.regularizer import check_choice

Schedule: TypeAlias = Literal["exp", "cosine", "linear", "constant"]
SCHEDULES = ("exp", "cosine", "linear", "constant")


class Anneal:
    r"""A weight that goes from `start` to `end` in `steps` steps, and stays there.

    With $s$ the share of the steps that are done: exponential $a\,(b/a)^s$, cosine $b + (a - b)(1 + \cos \pi s)/2$,
    linear $a + (b - a)\,s$, constant $a$. Before, it grows from zero in `warmup` steps.

    Call it with a step, or without: it then counts its steps by `advance`, and `state_dict` holds the count.

    Args:
        schedule: `"exp"`, `"cosine"`, `"linear"` or `"constant"`.
        start: Weight after the warm-up, $a$.
        end: Weight at the end, $b$; left out for a constant one.
        steps: Steps from one to the other, after the warm-up.
        warmup: Steps in which the weight grows linearly from zero.

    Raises:
        ValueError: If a number is missing or out of range.

    Example:
        >>> weight = Anneal("exp", 1e3, 1e2, steps=300)
        >>> [round(weight(step)) for step in (0, 150, 300, 1000)]
        [1000, 316, 100, 100]
    """

    def __init__(
        self, schedule: Schedule, start: float, end: float | None = None, steps: int | None = None, *, warmup: int = 0
    ) -> None:
        check_choice("schedule", schedule, SCHEDULES)
        if schedule == "constant":
            if end is not None or steps is not None:
                raise ValueError("A constant weight has neither `end` nor `steps`: leave them out.")
            end, steps = start, 1
        if end is None or steps is None:
            raise ValueError(f"`Anneal({schedule!r}, ...)` needs `start`, `end` and `steps`.")
        if steps < 1 or warmup < 0:
            raise ValueError(f"`steps` must be at least 1 and `warmup` at least 0, got {steps} and {warmup}.")
        if not (math.isfinite(start) and math.isfinite(end)) or (schedule == "exp" and min(start, end) <= 0.0):
            raise ValueError(f"`start` and `end` must be finite, for `'exp'` positive, got {start} and {end}.")
        self.schedule, self.start, self.end, self.steps, self.warmup = schedule, start, end, steps, warmup
        self.step = 0

    def __call__(self, step: int | None = None) -> float:
        """Return the weight at a step, by default the one it has counted to."""
        at = self.step if step is None else step
        if at < 0:
            raise ValueError(f"`step` must not be negative, got {at}.")
        if at < self.warmup:
            return self.start * at / self.warmup
        share = min(1.0, (at - self.warmup) / self.steps)
        if self.schedule == "exp":
            return self.start * (self.end / self.start) ** share
        if self.schedule == "cosine":
            return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * share))
        return self.start + (self.end - self.start) * share

    def advance(self) -> float:
        """Return the weight now, and count one step."""
        weight = self()
        self.step += 1
        return weight

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold: everything."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint was made.

        Raises:
            ValueError: If it is that of something else.
        """
        if set(state) != set(vars(self)):
            raise ValueError(f"Expected a state with {', '.join(vars(self))}, got {', '.join(map(str, state))}.")
        vars(self).update(state)

    def __repr__(self) -> str:
        warmup = f", warmup={self.warmup}" if self.warmup else ""
        if self.schedule == "constant":
            return f"Anneal('constant', {self.start:g}{warmup})"
        return f"Anneal({self.schedule!r}, {self.start:g}, {self.end:g}, steps={self.steps}{warmup})"
