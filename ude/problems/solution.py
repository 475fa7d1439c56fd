"""What a solve gives back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from torch import Tensor

from ude._typing import State
from ude.problems.ode import ODEProblem
from ude.problems.sde import SDEProblem


class Status(IntEnum):
    """How the solve of one sample ended. Everything but `SUCCESS` and `TERMINATED`, by an event, is a failure."""

    SUCCESS = 0
    MAX_STEPS = 1
    STEP_TOO_SMALL = 2
    NON_FINITE = 3
    BACKEND_FAILED = 4
    TERMINATED = 5
    EVENTS_STALLED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """One row per attempted step, one column per sample; the column is absent for an unbatched problem.

    `error` and `stiffness` are on the autograd graph; `t` and `dt` are constants for the gradient.

    Args:
        t: Time at which the step starts, shape `(steps, batch)`.
        dt: Signed length of the step; zero where the sample had already finished.
        error: Error ratio: the root mean square of `error_i / (atol + rtol * max(|y0_i|, |y1_i|))`. A step
            is accepted when it is at most 1. Zero for methods without an error estimate.
        stiffness: Estimate of the largest rate of the dynamics (spectral radius of the Jacobian, in
            1/time) from the last two stages; zero where the method has none.
        accepted: True where the step was taken, False where it was rejected or the sample had finished.
    """

    t: Tensor
    dt: Tensor
    error: Tensor
    stiffness: Tensor
    accepted: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Counts of work, integer tensors of shape `()`, or `(batch,)` for a batched problem.

    `nfe` is what the solve of a sample costs alone. The samples of a batch are evaluated together; each is charged only
    while it is under way: not once its solve, or Newton's method in its step, has come to an end, and not for a step or
    an event of another sample. Counted are the search for the first step, rejected steps, steps made again because
    they met an infinite number or left their domain, iterations, extra stages for states between steps, and what events
    ask for. Where gradients are recorded, methods with Newton's method evaluate once more at every root. A pass of a
    Taylor series counts as one evaluation.

    Not counted are evaluations that only serve a Jacobian or its products, which differentiation or
    `ODEProblem(jacobian=...)` gives; the backward pass; what `Solution.__call__` evaluates later; and calls by which an
    engine finds out what the vector field is, such as those of the compiler. A backend reports what its library does.

    Args:
        nfe: Evaluations of the vector field.
        accepted: Steps taken.
        rejected: Steps tried and thrown away.
    """

    nfe: Tensor
    accepted: Tensor
    rejected: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """What happened during a solve, sample by sample in order of time.

    Samples with fewer events than others have NaN times and `which` = -1 in their last rows. An unbatched problem has
    no batch axis. Times and states are on the autograd graph.

    Args:
        which: Number of the event in the list given to `solve`, shape `(count, batch)`.
        ts: Its time, same shape.
        before: State just before, shape `(count, *y0.shape)`; a pytree of such tensors if `y0` is one.
        after: State just after.
    """

    which: Tensor
    ts: Tensor
    before: State
    after: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A trajectory, with the work and the quality of every step.

    The time axis comes first everywhere.

    Args:
        ts: Times of the saved states, shape `(times,)`, or `(times, batch)` for a batched problem
            whose samples are saved at different times.
        ys: Saved states, shape `(times, *y0.shape)`; a pytree of such tensors if `y0` is one. States
            after a failure, or after an event that ended the solve, are NaN. At the time of an event the state is
            that just before it.
        steps: One row per attempted step.
        stats: Counts of work.
        status: `Status` of every sample, an integer tensor of shape `()` or `(batch,)`.
        interpolant: Continuous solution; None if the solve was told not to keep it.
        events: What happened; None if the solve was not asked to look for events.
        problem: What was solved.
        method: What made the steps, a method or a backend.
        rtol: Relative tolerance, as it was given to `solve`.
        atol: Absolute tolerance, likewise.
    """

    ts: Tensor
    ys: State
    steps: Steps
    stats: Stats
    status: Tensor
    interpolant: Callable[[Tensor], State] | None = None
    events: EventLog | None = None
    problem: ODEProblem | SDEProblem | None = None
    method: Any = None
    rtol: float | State = math.nan
    atol: float | State = math.nan

    @property
    def success(self) -> Tensor:
        """True where the solve reached its end or an event that ends it, a boolean tensor of the shape of `status`."""
        return (self.status == Status.SUCCESS) | (self.status == Status.TERMINATED)

    def __call__(self, t: float | Tensor) -> State:
        """Evaluate the continuous solution at the time or times `t`, at the order of the method.

        Args:
            t: A number, or a tensor of shape `(times,)`, within the interval that was solved; for a
                batched problem also `(times, batch)`.

        Returns:
            The state at `t` with the shape of `y0`, with a leading time axis if `t` has one.

        Raises:
            ValueError: If the solve did not keep its interpolant, or `t` lies outside the interval.
        """
        if self.interpolant is None:
            raise ValueError(
                "This solution was computed without its continuous extension. Solve with `dense=True` and a "
                "method of this library (not a backend, not a checkpointed gradient), or name the times in `save_at`."
            )
        return self.interpolant(t if isinstance(t, Tensor) else self.ts.new_tensor(t))


class SolveError(RuntimeError):
    """A solve failed; the message names the sample, time, step, error and what usually helps.

    Attributes:
        solution: What was computed up to the failure, a `Solution`.
    """

    def __init__(self, message: str, solution: Solution) -> None:
        super().__init__(message)
        self.solution = solution
