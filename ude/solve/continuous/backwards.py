"""The adjoint equation, solved from the last saved state back to the start."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude import ad
from ude._checks import UdeWarning
from ude.methods import ExplicitRungeKutta, Kvaerno4
from ude.methods.method import Method
from ude.problems import ODEProblem, Solution
from ude.solve.continuous.adjoint import Backsolve, Gauss, Interpolating
from ude.solve.continuous.pullback import Pullback
from ude.solve.engines import Task
from ude.solve.events import PresetTimes

UNCONTROLLED = 1e30
"""Absolute tolerance of what takes no part in the error estimate."""
FAR = 1e3
"""Distance of the state that came back from where it began, in tolerances, above which a warning is given."""
ROWS = 16
"""Nodes of the quadrature whose vector fields are recorded at the same time."""


class Cotangents(NamedTuple):
    """Cotangents of the saved states, put in order for the way back.

    Args:
        start: Time of the last saved state per sample, shape `(batch,)`.
        first: Its cotangent, shape `(batch, state)`.
        times: Times of the others, shape `(rows, batch)`; that of the start where there is nothing to add.
        jumps: Their cotangents, shape `(rows, batch, state)`.
        end: Start of the forward solve, shape `(batch,)`.
        at_start: Sum of the cotangents of states saved there.
    """

    start: Tensor
    first: Tensor
    times: Tensor
    jumps: Tensor
    end: Tensor
    at_start: Tensor

    @classmethod
    def of(cls, times: Tensor, cotangents: Tensor, t0: Tensor) -> Cotangents:
        """Sort cotangents `(times, batch, state)`; those of equal times are added."""
        at_t0 = (times == t0).unsqueeze(-1)
        at_start = torch.where(at_t0, cotangents, 0.0).sum(0)
        jumps = torch.where(at_t0, 0.0, cotangents).clone()
        repeated = times[1:] == times[:-1]
        if bool(repeated.any()):
            for row in range(len(times) - 2, -1, -1):
                same = repeated[row].unsqueeze(-1)
                jumps[row + 1 :][:1] += torch.where(same, jumps[row], 0.0)
                jumps[row] = torch.where(same, 0.0, jumps[row])
        start = times[-1]
        earlier = torch.where(times[:-1] == times[1:], start, times[:-1])
        return cls(start, jumps[-1], earlier, jumps[:-1], t0, at_start)

    def jump(self, t: Tensor) -> Tensor:
        """Return what is added at the times `t` of shape `(batch,)`."""
        row = (self.times == t).int().argmax(0)
        return self.jumps.gather(0, row.reshape(1, -1, 1).expand(1, *self.first.shape))[0]


def jointly(
    adjoint: Backsolve | Interpolating,
    task: Task,
    solution: Solution,
    cotangents: Cotangents,
    y0: Tensor,
    pullback: Pullback,
    solve: Callable[..., Solution],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Solve for adjoint and parameters' cotangents, and with `Backsolve` the state, in one system for all samples."""
    batch, method = len(y0), _method(adjoint.method, task)
    with_state = isinstance(adjoint, Backsolve)

    def field(t: Tensor, state: dict[str, Any]) -> dict[str, Any]:
        ts = t.expand(batch)
        y = state["y"] if with_state else _state_at(task, solution, t)
        value, rows, columns = pullback(ts, y, state["a"])
        rates = {"a": -rows, "g": tuple(-column for column in columns)}
        return {**rates, "y": value} if with_state else rates

    def jump(t: Tensor, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "a": state["a"] + cotangents.jump(t.expand(batch))}

    start = {"a": cotangents.first, "g": tuple(torch.zeros_like(p) for p in pullback.parameters)}
    if with_state:
        start["y"] = _last_state(task, solution)
    tolerances = _tolerances(adjoint, task, start)
    with torch.no_grad():
        back = solve(
            ODEProblem(field, start, (cotangents.start[0], cotangents.end[0])),
            method,
            save_at=cotangents.end[:1],
            events=[PresetTimes(cotangents.times[:, 0], jump)],
            dense=False,
            **tolerances,
        )
    end = {name: pytree.tree_map(lambda x: x[0], value) for name, value in cast("dict[str, Any]", back.ys).items()}
    if with_state:
        _warn_if_far(end["y"], y0, task)
    return end["a"], end["g"]


def by_quadrature(
    adjoint: Gauss,
    task: Task,
    solution: Solution,
    cotangents: Cotangents,
    pullback: Pullback,
    solve: Callable[..., Solution],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Solve for the adjoint of every sample, then integrate the parameters' cotangents over its steps."""
    low, high = torch.minimum(cotangents.start, cotangents.end), torch.maximum(cotangents.start, cotangents.end)

    def known(t: Tensor) -> Tensor:
        # Some implicit methods have a stage just beyond the end of the step.
        return t.flatten().clamp(low, high)

    def field(t: Tensor, a: Tensor) -> Tensor:
        ts = known(t)
        return -pullback(ts, _states_at(task, solution, ts), a, parameters=False)[1]

    def jacobian(t: Tensor, a: Tensor) -> Tensor:
        ts = known(t)
        matrix = ad.linearise(task.field, ts, _states_at(task, solution, ts), rate=False).jacobian
        return -cast(Tensor, matrix).mT

    def jump(t: Tensor, a: Tensor) -> Tensor:
        return a + cotangents.jump(t.flatten())

    method = adjoint.method or (task.method if isinstance(task.method, ExplicitRungeKutta) else Kvaerno4())
    explicit = isinstance(method, ExplicitRungeKutta)
    tolerances = {
        "rtol": task.limits.rtol if adjoint.rtol is None else adjoint.rtol,
        "atol": task.limits.atol if adjoint.atol is None else adjoint.atol,
    }
    with torch.no_grad():
        back = solve(
            ODEProblem(
                field,
                cotangents.first,
                (cotangents.start, cotangents.end),
                batched=True,
                jacobian=None if explicit else jacobian,
            ),
            method,
            events=[PresetTimes(cotangents.times, jump)],
            **tolerances,
        )
        return cast(Tensor, back.ys)[-1], _quadrature(adjoint.nodes, task, solution, back, pullback)


def _quadrature(nodes: int, task: Task, solution: Solution, back: Solution, pullback: Pullback) -> tuple[Tensor, ...]:
    r"""Return $\int a^T f_p\, dt$ over the accepted steps of the way back."""
    import numpy as np

    totals = [torch.zeros_like(p) for p in pullback.parameters]
    steps = back.steps
    if not pullback.parameters or not len(steps.t):
        return tuple(totals)
    places, weights = np.polynomial.legendre.leggauss(nodes)
    like = {"dtype": steps.t.dtype, "device": steps.t.device}
    places, weights = (torch.as_tensor(x, **like).reshape(1, -1, 1) for x in ((places + 1) / 2, weights / 2))
    ts = (steps.t.unsqueeze(1) + places * torch.where(steps.accepted, steps.dt, 0.0).unsqueeze(1)).flatten(0, 1)
    # The way back runs against time.
    lengths = (-weights * torch.where(steps.accepted, steps.dt, 0.0).unsqueeze(1)).flatten(0, 1)
    adjoints = cast(Tensor, back(ts)) * lengths.to(task.limits.rtol.dtype).unsqueeze(-1)
    states = _rows_at(task, solution, ts)
    for row in range(0, len(ts), ROWS):
        part = slice(row, row + ROWS)
        with torch.enable_grad():
            values = [pullback.field(t, y) for t, y in zip(ts[part], states[part], strict=True)]
            value = torch.stack(values)
            if not value.requires_grad:
                continue
            rows = ad.grad([value], pullback.parameters, [adjoints[part].to(value.dtype)], retain_graph=True)
        totals = [total + new for total, new in zip(totals, rows, strict=True)]
    return tuple(totals)


def _method(given: Method | None, task: Task) -> Method:
    method = task.method if given is None else given
    if not isinstance(method, ExplicitRungeKutta):
        raise ValueError(
            f"`Backsolve` and `Interpolating` need an explicit method for the way back, got {method}. Name one "
            "(`method=Tsit5()`), or use `Gauss()`, which takes implicit ones, or `Checkpointed()`."
        )
    return method


def _tolerances(adjoint: Backsolve | Interpolating, task: Task, start: dict[str, Any]) -> dict[str, Any]:
    rtol = task.limits.rtol if adjoint.rtol is None else torch.as_tensor(adjoint.rtol)
    atol = task.limits.atol if adjoint.atol is None else torch.as_tensor(adjoint.atol)
    tightest = float(atol.min()) if adjoint.control_parameters else UNCONTROLLED
    states = {name for name in start if name != "g"}
    return {
        "rtol": {**dict.fromkeys(states, rtol), "g": tuple(float(rtol.min()) for _ in start["g"])},
        "atol": {**dict.fromkeys(states, atol), "g": tuple(tightest for _ in start["g"])},
    }


def _state_at(task: Task, solution: Solution, t: Tensor) -> Tensor:
    """Return all states at one time, shape `(batch, state)`."""
    return task.layout.flatten(solution(t))


def _states_at(task: Task, solution: Solution, ts: Tensor) -> Tensor:
    """Return every sample's state at its own time, shape `(batch, state)`."""
    return _rows_at(task, solution, ts.unsqueeze(0))[0]


def _rows_at(task: Task, solution: Solution, ts: Tensor) -> Tensor:
    """Return states at times `(rows, batch)`, shape `(rows, batch, state)`."""
    return task.layout.flatten(solution(ts if task.layout.batched else ts[:, 0]), lead=1)


def _last_state(task: Task, solution: Solution) -> Tensor:
    return task.layout.flatten(solution.ys, lead=1)[-1]


def _warn_if_far(back: Tensor, y0: Tensor, task: Task) -> None:
    scale = torch.addcmul(task.limits.atol, y0.abs(), task.limits.rtol)
    distance = float(((back - y0).abs() / scale).max())
    if not distance < FAR:
        warnings.warn(
            f"`Backsolve` came back {distance:.1e} tolerances away from the initial state: the gradient is off by as "
            "much. The problem is unstable backwards in time; use `Gauss()`, `Interpolating()` or `Checkpointed()`.",
            UdeWarning,
            stacklevel=2,
        )
