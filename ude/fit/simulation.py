"""Solve a model for all replicates and all intervals as one batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ude.fit.task import Task
from ude.models import Signal
from ude.problems import ODEProblem
from ude.solve import FixedStep, solve
from ude.solve.engines import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Time intervals that are solved side by side.

    Args:
        save_at: Times to save at, shape `(intervals, times)`; the first is where the interval starts, the
            last is where it ends, and shorter ones repeat their last time.
        signal: Exogenous inputs during each interval.
    """

    save_at: Tensor
    signal: Signal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepping:
    """Constant steps of length `dt`, or adaptive ones where it is None, run by an engine."""

    dt: float | None
    engine: Engine

    def halved(self) -> Stepping:
        """Return steps of half the length."""
        return self if self.dt is None else Stepping(dt=self.dt / 2, engine=self.engine)


def simulate(task: Task, intervals: Intervals, z0: Tensor, stepping: Stepping) -> Tensor:
    """Solve from `z0` and return the states at `intervals.save_at`.

    Args:
        task: Model, scales and solver.
        intervals: N intervals.
        z0: States at the start of each interval in the model's coordinates, shape `(members, N, states)`.
        stepping: Steps and engine.

    Returns:
        States, shape `(members, N, times, states)`; NaN after a solve has failed.
    """
    members, count, states = z0.shape
    t, options = intervals.save_at, task.solver
    is_shared = bool((t == t[:1]).all())
    save_at = t[0] if is_shared else t.T.repeat(1, members)
    problem = ODEProblem(
        task.field,
        z0.reshape(members * count, states),
        (save_at[0], save_at[-1]),
        p=intervals.signal,
        batched=True,
    )
    sol = solve(
        problem,
        options.method,
        save_at=save_at,
        rtol=options.rtol,
        atol=options.atol * task.latent_scale(),
        dt=stepping.dt,
        controller=None if stepping.dt is None else FixedStep(),
        engine=stepping.engine,
        dense=False,
        max_steps=options.max_steps,
        throw=False,
    )
    ys = task.model.coordinates.decode(sol.ys)
    return ys.reshape(-1, members, count, states).permute(1, 2, 0, 3)


def whole_trajectories(task: Task) -> Intervals:
    """Return one interval per trajectory, from its first to its last time."""
    return Intervals(save_at=task.ts, signal=task.signal)
