"""Which engine to take, and why."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ude.methods.explicit import ExplicitRungeKutta
from ude.problems import Solution
from ude.solve.compilation import NotCompilable, owner_of
from ude.solve.engines import Eager, Engine, Task
from ude.solve.loop import Loop

logger = logging.getLogger("ude")

HANDFUL = 3_000
"""Attempts of eager steps that take about as long as compiling."""
WIDE = 2**16
"""Numbers in the state from which the vector field and memory, not the loop around them, take the time."""

_made: dict[int, tuple[weakref.ref[Any], int]] = {}
"""Eager attempts made so far with a vector field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Auto:
    """The eager engine at first, the compiled loop once a vector field has been solved often enough to pay for it.

    Compiling takes some seconds. It begins when some 3,000 attempts have been made with the same function or
    module in this process, and never for events, states of more than 65,536 numbers, or methods that are not explicit.
    What the compiler refuses stays eager, with a warning in the log.

    Args:
        explain: Log the choice and its reason at the level INFO instead of DEBUG; the logger is `ude`.
    """

    explain: bool = False

    def run(self, task: Task, y0: Tensor, solve: Callable[[Engine], Solution]) -> Solution:
        """Solve with the engine chosen, and count what the eager one does.

        Args:
            task: The solve.
            y0: Initial state, shape `(batch, state)`.
            solve: Solves with an engine.
        """
        engine, reason = self._choice(task, y0)
        level = logging.INFO if self.explain else logging.DEBUG
        logger.log(level, "Engine %s: %s.", type(engine).__name__.lower(), reason)
        if isinstance(engine, Loop):
            try:
                return solve(engine)
            except NotCompilable as error:
                _refuse(task.vector_field, error)
        solution = solve(Eager())
        _count(task.vector_field, len(solution.steps.t))
        return solution

    def _choice(self, task: Task, y0: Tensor) -> tuple[Engine, str]:
        if task.handler is not None:
            return Eager(), "events are looked for after every step"
        if not isinstance(task.method, ExplicitRungeKutta):
            return Eager(), f"{task.method} is not an explicit method, whose loop compiles quickly"
        if y0.numel() > WIDE:
            return Eager(), f"the state has {y0.numel()} numbers, so that the vector field takes the time"
        made = _attempts_made(task.vector_field)
        if made < HANDFUL:
            return Eager(), f"{made} steps with this vector field so far; compiling pays after {HANDFUL}"
        if _is_refused(task.vector_field):
            return Eager(), "the compiler has refused this vector field before"
        return Loop(), f"{made} steps with this vector field so far"


def _attempts_made(vector_field: Any) -> int:
    """Return the eager attempts counted for a vector field."""
    owner, _ = owner_of(vector_field)
    entry = _made.get(id(owner))
    return entry[1] if entry is not None and entry[0]() is owner else 0


def _count(vector_field: Any, attempts: int) -> None:
    """Remember that so many more attempts were made with a vector field."""
    owner, _ = owner_of(vector_field)
    key, before = id(owner), _attempts_made(vector_field)
    _made[key] = (weakref.ref(owner, lambda _: _made.pop(key, None)), before + attempts)


_refused: dict[int, weakref.ref[Any]] = {}
"""Vector fields that the compiler would not take."""


def _is_refused(vector_field: Any) -> bool:
    owner, _ = owner_of(vector_field)
    entry = _refused.get(id(owner))
    return entry is not None and entry() is owner


def _refuse(vector_field: Any, reason: BaseException) -> None:
    """Remember that the compiler would not take a vector field, and say so."""
    owner, _ = owner_of(vector_field)
    key = id(owner)
    _refused[key] = weakref.ref(owner, lambda _: _refused.pop(key, None))
    logger.warning("Solving with the eager engine: %s", reason)
