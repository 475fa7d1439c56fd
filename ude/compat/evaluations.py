"""How often a call evaluated the vector field, and what for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from ude.compat.call import Call, Field
from ude.compat.callbacks import Callback
from ude.compat.names import supported_callbacks
from ude.methods import Method
from ude.problems import Stats

Purpose: TypeAlias = Literal["initial", "forward", "rejected", "regularizer", "adjoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluations:
    """Evaluations of the vector field.

    Args:
        forward: For the steps that were taken, and for states between them.
        rejected: For steps that were thrown away.
        initial: At the start, and to choose the length of the first step.
        regularizer: For the cost. A Taylor series counts as one, whatever its order.
        adjoint: In backward passes, as far as they have been made. Zero for `odeint`, whose backward pass goes through
            the evaluations there were; that of a Taylor series may evaluate once more.
    """

    forward: int = 0
    rejected: int = 0
    initial: int = 0
    regularizer: int = 0
    adjoint: int = 0

    @property
    def solve(self) -> int:
        """Those of the solve, whatever became of them."""
        return self.forward + self.rejected + self.initial

    @property
    def total(self) -> int:
        """All of them."""
        return self.solve + self.regularizer + self.adjoint


@dataclass(slots=True)
class Tally:
    """Counts calls of a vector field by their purpose.

    Args:
        counts: So far.
        purpose: Of the next call; None while it depends on what becomes of a step.
        pending: Calls for that step.
    """

    counts: Evaluations = field(default_factory=Evaluations)
    purpose: Purpose | None = "initial"
    pending: int = 0

    def counting(self, func: Field) -> Field:
        """Return a vector field whose calls are counted."""

        def counted(t: Any, y: Any) -> Any:
            if self.purpose is None:
                self.pending += 1
            else:
                self._add(self.purpose, 1)
            return func(t, y)

        return counted

    def listening(self, call: Call) -> Call:
        """Return a call that tells of its steps, besides whom it tells already."""
        own: dict[str, Callable[[], None]] = {
            "callback_step": self._begin,
            "callback_accept_step": lambda: self.go_on("forward"),
            "callback_reject_step": lambda: self.go_on("rejected"),
        }
        given = call.callbacks.functions
        functions = {name: _both(own[name], given.get(name)) for name in supported_callbacks(call.method)}
        return replace(call, callbacks=replace(call.callbacks, functions=functions))

    def go_on(self, purpose: Purpose) -> None:
        """Go on with another purpose; the calls of a step that was decided on are of this one."""
        if self.purpose is None:
            # On a grid nothing is rejected, and nothing is said of it.
            self._add(purpose if purpose in ("forward", "rejected") else "forward", self.pending)
            self.pending = 0
        self.purpose = purpose

    def take(self, stats: Stats, method: Method, *, is_given: bool) -> None:
        """Take the counts from the statistics of a solve, whose engine does not call the vector field itself.

        Args:
            stats: Of the solve.
            method: Made the steps.
            is_given: So was the length of the first step, which else takes one evaluation.
        """
        initial, rejected = method.init_evaluations + (not is_given), int(stats.rejected) * method.evaluations
        self.counts = Evaluations(
            initial=initial, rejected=rejected, forward=int(stats.nfe) - initial - rejected, adjoint=self.counts.adjoint
        )

    def _begin(self) -> None:
        if self.purpose is None:
            self.go_on("forward")
        self.purpose = None

    def _add(self, purpose: Purpose, calls: int) -> None:
        self.counts = replace(self.counts, **{purpose: getattr(self.counts, purpose) + calls})


def _both(tell: Callable[[], None], given: Callback | None) -> Callback:
    """Return a callback that counts, then does what the user's does."""

    def callback(t: Any, y: Any, dt: Any) -> None:
        tell()
        if given is not None:
            given(t, y, dt)

    return callback
