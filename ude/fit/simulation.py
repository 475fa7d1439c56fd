"""Solve a model for all replicates and all intervals as one batch, and differentiate all steps at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ude.ad import attach, grad
from ude.fit.task import Task
from ude.models import Signal
from ude.problems import ODEProblem
from ude.solve import FixedStep, solve
from ude.solve.engines import Eager, Engine

MOST_STATES_FOR_PARALLEL = 8
"""With more states, their Jacobians cost more than differentiating one step after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Time intervals that are solved side by side.

    Args:
        start: Where each begins, shape `(intervals,)`.
        save_at: Times to save at, shape `(intervals, times)`; the last is where the interval ends, and shorter
            ones repeat their last time.
        signal: Exogenous inputs during each interval.
    """

    start: Tensor
    save_at: Tensor
    signal: Signal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepping:
    """Constant steps of at most `dt`, or adaptive ones where it is None, run by an engine."""

    dt: float | None
    engine: Engine

    def halved(self) -> Stepping:
        """Return steps of half the length."""
        return self if self.dt is None else Stepping(dt=self.dt / 2, engine=self.engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepGrid:
    """The steps of intervals that all take the same number of them, and the times saved within each.

    Args:
        nodes: Ends of the steps, shape `(intervals, steps + 1)`.
        save_at: Times saved within each step, and last its end, shape `(intervals, steps, slots + 1)`.
        step: Step in which each saved time of an interval lies, shape `(intervals, times)`.
        slot: Its place within that step, same shape.
    """

    nodes: Tensor
    save_at: Tensor
    step: Tensor
    slot: Tensor

    @classmethod
    def of(cls, intervals: Intervals, dt: float) -> StepGrid:
        """Divide every interval into as many equal steps as the longest needs."""
        save_at = intervals.save_at
        start, end = intervals.start[:, None], save_at[:, -1:]
        steps = count_steps(intervals, dt)
        fraction = torch.arange(steps + 1, dtype=save_at.dtype) / steps
        nodes = torch.where(fraction < 1, start + fraction * (end - start), end)
        step = (torch.searchsorted(nodes, save_at.contiguous()) - 1).clamp(0, steps - 1)
        # Times of one step are neighbours: the place of each is its distance from the first.
        first = torch.searchsorted(step, step)
        slot = torch.arange(step.shape[1]) - first
        table = nodes[:, 1:, None].repeat(1, 1, int(slot.max()) + 2)
        rows = torch.arange(len(nodes))[:, None]
        table[rows, step, slot] = save_at
        return cls(nodes=nodes, save_at=table, step=step, slot=slot)


def count_steps(intervals: Intervals, dt: float) -> int:
    """Return the number of steps of at most `dt` that the longest interval needs."""
    longest = float((intervals.save_at[:, -1] - intervals.start).max())
    return max(1, math.ceil(longest / dt * (1 - 1e-9)))


class Simulator:
    """Solves a task's model over given intervals for all members at once, as often as asked.

    Args:
        task: Model, scales and solver.
        intervals: What is solved side by side.
        stepping: Steps and engine.
    """

    def __init__(self, task: Task, intervals: Intervals, stepping: Stepping) -> None:
        self.task, self.intervals, self.stepping = task, intervals, stepping
        is_small = len(task.model.states) <= MOST_STATES_FOR_PARALLEL
        self._grid = None if stepping.dt is None or not is_small else StepGrid.of(intervals, stepping.dt)

    def __call__(self, z0: Tensor) -> Tensor:
        """Solve from `z0` and return the states at the times of the intervals.

        Args:
            z0: States at the start of each of N intervals in the model's coordinates, `(members, N, states)`.

        Returns:
            States, shape `(members, N, times, states)`; NaN after a solve has failed.
        """
        if self._grid is None or not torch.is_grad_enabled():
            z = solve_intervals(self.task, self.intervals, z0, self.stepping)
        else:
            z = solve_in_parallel(self.task, self.intervals, z0, self.stepping, self._grid)
        return self.task.model.coordinates.decode(z)


def solve_intervals(task: Task, intervals: Intervals, z0: Tensor, stepping: Stepping) -> Tensor:
    """Solve from `z0` `(members, N, states)`; returns coordinates `(members, N, times, states)`."""
    members, count, states = z0.shape
    t, options = intervals.save_at, task.solver
    is_shared = bool((t == t[:1]).all()) and bool((intervals.start == intervals.start[0]).all())
    save_at = t[0] if is_shared else t.T.repeat(1, members)
    start = intervals.start[0] if is_shared else intervals.start.repeat(members)
    end = save_at[-1]
    problem = ODEProblem(task.field, z0.reshape(members * count, states), (start, end), intervals.signal, batched=True)
    dt = None if stepping.dt is None else (end - start) / count_steps(intervals, stepping.dt)
    sol = solve(
        problem,
        options.method,
        save_at=save_at,
        rtol=options.rtol,
        atol=options.atol * task.latent_scale(),
        dt=dt,
        controller=None if dt is None else FixedStep(),
        engine=stepping.engine,
        dense=False,
        max_steps=options.max_steps,
        throw=False,
    )
    return sol.ys.reshape(-1, members, count, states).permute(1, 2, 0, 3)


def solve_in_parallel(task: Task, intervals: Intervals, z0: Tensor, stepping: Stepping, grid: StepGrid) -> Tensor:
    r"""Do what `solve_intervals` does with constant steps, and differentiate all steps side by side.

    A first pass without derivatives finds the states $z_n$ at the ends of all steps. A second one takes every step
    $z_{n+1} = \Phi_n(z_n, \theta)$ again, all in one batch, with derivatives. Backward, the Jacobians
    $J_n = \partial\Phi_n / \partial z_n$ come from as many batched passes as there are states, the adjoint is the
    recursion $\mu_n = g_n + J_n^T \mu_{n+1}$ in small matrices, where $g_n$ comes from what was saved within step
    $n$, and one more batched pass gives the gradient of the parameters. The result is that of reverse mode through
    all steps, up to rounding; only the first pass is as long as the trajectory.
    """
    count, states = z0.shape[1:]
    steps = grid.nodes.shape[1] - 1
    with torch.no_grad():
        coarse = Intervals(start=intervals.start, save_at=grid.nodes, signal=intervals.signal)
        nodes = solve_intervals(task, coarse, z0, stepping)
    begin = nodes[:, :, :-1].detach().requires_grad_()
    signal = None if intervals.signal is None else intervals.signal.take(torch.arange(count).repeat_interleave(steps))
    single = Intervals(start=grid.nodes[:, :-1].flatten(), save_at=grid.save_at.flatten(0, 1), signal=signal)
    one_step = Stepping(dt=float("inf"), engine=Eager())
    z = solve_intervals(task, single, begin.flatten(1, 2), one_step).unflatten(1, (count, steps))
    saved, end = z[:, torch.arange(count)[:, None], grid.step, grid.slot], z[..., -1, :]
    parameters = [p for p in task.model.parameters() if p.requires_grad and p.numel()]

    def pullback(cotangent: Tensor) -> list[Tensor]:
        (direct,) = grad(saved, [begin], cotangent, retain_graph=True)
        units = torch.eye(states, dtype=z.dtype).unbind()
        rows = [grad(end, [begin], unit.expand_as(end), retain_graph=True)[0] for unit in units]
        jacobian = torch.stack(rows, dim=-2)
        adjoints = [torch.zeros_like(direct[:, :, 0])]
        for n in reversed(range(steps)):
            adjoints.append(direct[:, :, n] + (jacobian[:, :, n].mT @ adjoints[-1].unsqueeze(-1)).squeeze(-1))
        after = torch.stack(adjoints[-2::-1], dim=2)
        return [adjoints[-1], *grad([saved, end], parameters, [cotangent, after])]

    return attach(saved.detach(), [z0, *parameters], pullback)


def whole_trajectories(task: Task) -> Intervals:
    """Return one interval per trajectory, from its first to its last time."""
    return Intervals(start=task.ts[:, 0], save_at=task.ts, signal=task.signal)
