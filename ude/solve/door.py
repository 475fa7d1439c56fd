"""The door `solve`: checks once, then hands tensors to the loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ude._checks import positive
from ude._typing import State
from ude.methods.method import Method
from ude.problems import EnsembleProblem, ODEProblem, SDEProblem, Solution
from ude.solve.adjoints import Adjoint, Direct
from ude.solve.arguments import (
    check_kinds,
    default_method,
    default_tolerances,
    read_controller,
    read_engine,
    read_events,
    read_first_step,
    refuse_options,
)
from ude.solve.auto import Auto
from ude.solve.backend import Backend, solve_by_backend
from ude.solve.compiled import Compiled
from ude.solve.continuous import ContinuousAdjoint, Gauss, Interpolating, differentiable_states
from ude.solve.controllers import Controller
from ude.solve.engines import Engine, Task
from ude.solve.ensemble import as_batch
from ude.solve.events import Event
from ude.solve.failure import raise_on_failure
from ude.solve.flatten import Layout
from ude.solve.frame import Bounds, Frame, read_frame
from ude.solve.integrate import Given, Plan, integrate
from ude.solve.loop import Loop
from ude.solve.stochastic import StochasticLayout, check_stochastic, save_stops, with_path
from ude.solve.torchsde_backend import check_backend, read_noise


def solve(
    problem: ODEProblem | SDEProblem | EnsembleProblem,
    method: Method | Backend | None = None,
    *,
    save_at: Tensor | Sequence[float] | None = None,
    rtol: float | State | None = None,
    atol: float | State | None = None,
    dt: float | Tensor | None = None,
    controller: Controller | None = None,
    engine: str | Engine | Auto = "eager",
    adjoint: Adjoint | ContinuousAdjoint = Direct(),  # noqa: B008
    dense: bool = True,
    max_steps: int = 100_000,
    min_step: float = 0.0,
    max_step: float = math.inf,
    stop_at: Tensor | Sequence[float] | None = None,
    events: Sequence[Event] = (),
    throw: bool = True,
    progress: bool = False,
) -> Solution:
    r"""Solve $\dot y = f(t, y)$, or $dy = f(t, y)\, dt + g(t, y)\, dW$, with $y(t_0) = y_0$, from $t_0$ to $t_1$.

    Steps are as long as the tolerances allow: the root mean square over the components of the estimated error of a
    step, divided by `atol + rtol * |y|`, is at most 1. The result is differentiable in `y0`, `p`, everything that the
    vector field closes over, `save_at` and `t_span`; the gradient is that of the steps as they were made, whose
    lengths count as constants. So does the path of the Brownian motion: the gradient is that along the path.

    Args:
        problem: What to solve.
        method: Makes the steps; by default `AutoSwitch(Tsit5(), Rodas5P())`, which goes on with implicit steps where
            the problem turns out to be stiff; `Vern7()` in the place of `Tsit5()` where `rtol < 1e-6` in double
            precision. Compiled steps, continuous adjoints, complex states and those of more than 50 numbers per
            sample stay with the explicit method. `TorchDiffEq(...)` and `SciPy(...)` let another library solve. For an
            `SDEProblem` a stochastic method or `TorchSDE(...)`, by default `SOSRA()` for additive noise, `SOSRI()` for
            diagonal and scalar noise, `LambaEM()` for any other, `StratonovichHeun()` with integrals of Stratonovich.
        save_at: Times of the states to return, of shape `(times,)`, or `(times, batch)` for a batched problem;
            between $t_0$ and $t_1$, both allowed, in the direction of time. By default $t_0$ and the end of every
            step.
        rtol: Relative tolerance: a number, or a tensor that broadcasts to the state; by default 1e-5, for an
            `SDEProblem` 1e-2.
        atol: Absolute tolerance, in the unit of the state, likewise; by default 1e-7 and 1e-2. Give badly scaled
            states one each.
        dt: Length of the first step, in the unit of time; chosen automatically by default. With
            `controller=FixedStep()`, the length of every step.
        controller: Chooses the step lengths: `I()` by default, `PI()`, `PID()`, `FixedStep()`. A method without
            an error estimate takes constant steps.
        engine: `"eager"`, `"compiled"`, `"loop"` or `"auto"`, or an engine object with options.
        adjoint: Where the gradient comes from: `Direct()`, `Checkpointed()` for long solves whose gradient would not
            fit in memory; or from an equation of its own, `Gauss()`, `Interpolating()`, `Backsolve()`, `Forward()`,
            which record nothing. Their solution has no gradient but that of `ys`.
        dense: Keep the continuous solution, so that `solution(t)` works.
        max_steps: Most attempts per sample.
        min_step: Shortest step, in the unit of time, that the controller may ask for. A sample whose error is too large
            even so fails, unless the controller says `accepts_shortest`. Steps that end at a stop may be shorter.
        max_step: Longest step; for events or inputs that a longer one could overlook.
        stop_at: Times at which steps must end, of shape `(stops,)`, or `(stops, batch)` for a batched problem, such as
            kinks of the vector field in time; those outside of a sample's interval have no effect on it. After a jump
            use `PresetTimes`, which starts the method again.
        events: What to look for, a list of `ContinuousEvent`, `DiscreteEvent`, `PresetTimes`, `Periodic`,
            `SteadyState`, `ManifoldProjection`, `PositiveDomain`; see `Solution.events`. Needs the eager engine.
        throw: Raise `SolveError` if a sample fails; otherwise see `Solution.status`.
        progress: Show a progress bar.

    Returns:
        Times, states, and the work and quality of every step.

    Raises:
        ValueError: If an argument cannot be used.
        SolveError: If a sample fails and `throw` is set. It carries the solution up to there.

    Example:
        >>> import torch
        >>> decay = ODEProblem(lambda t, y: -y, torch.ones(2, dtype=torch.float64), (0.0, 1.0))
        >>> solution = solve(decay, save_at=[0.5, 1.0])
        >>> solution.ys
        tensor([[0.6065, 0.6065],
                [0.3679, 0.3679]], dtype=torch.float64)
    """
    check_kinds(problem, method, adjoint, events)
    if isinstance(problem, EnsembleProblem):
        problem = as_batch(problem)
    if isinstance(problem, SDEProblem):
        layout = StochasticLayout.read(problem)
        stop_at = stop_at if isinstance(method, Backend) else save_stops(save_at, stop_at, problem.t_span[1])
    else:
        layout = Layout.of(problem.y0, batched=problem.batched, jacobian=problem.jacobian)
    rtol, atol = default_tolerances(problem, rtol, atol)
    y0 = layout.flatten(problem.y0)
    given, frame = read_frame(problem, layout, y0, save_at, Bounds(stop_at, events, rtol, atol, min_step, max_step))
    span, times, _, limits = frame
    reason = ""
    if isinstance(method, Backend):
        check_backend(problem, method)
        field = layout.bind(problem.vector_field, problem.p)
        field.check_jacobian(span.t0, y0)
        refuse_options(
            dt=dt is not None and not isinstance(problem, SDEProblem),
            controller=controller is not None,
            engine=engine != "eager",
            adjoint=adjoint != Direct(),
            progress=progress,
            min_step=min_step != 0.0,
            max_step=max_step != math.inf,
            stop_at=stop_at is not None,
            events=bool(events),
        )
        noise = None
        if isinstance(layout, StochasticLayout):
            assert isinstance(problem, SDEProblem)
            noise = read_noise(problem, layout, span, dt)
        tolerances = (limits.rtol, limits.atol)
        solution, reason = solve_by_backend(method, layout, field, y0, span, times, tolerances, noise)
    else:
        method = default_method(problem, rtol, y0, engine, adjoint) if method is None else method
        asked = Asked(controller, dt, engine in ("compiled", "loop") or isinstance(engine, Compiled | Loop))
        task = _task(problem, layout, y0, method, asked, adjoint, frame, events)
        plan = Plan(int(positive("max_steps", max_steps)), dense, progress)
        solution = _run(read_engine(engine), adjoint, task, plan, Given(y0, span, times))
    ts = solution.ts if given is None else given
    solution = replace(solution, ts=ts, problem=problem, method=method, rtol=rtol, atol=atol)
    if throw:
        raise_on_failure(solution, problem, reason)
    return solution


class Asked(NamedTuple):
    """Arguments of `solve` that say how steps are made.

    Args:
        controller: Chooses their lengths; None for the usual one.
        dt: Length of the first, or of all.
        compiles: They are compiled.
    """

    controller: Controller | None
    dt: float | Tensor | None
    compiles: bool


def _task(
    problem: ODEProblem | SDEProblem,
    layout: Layout,
    y0: Tensor,
    method: Method,
    asked: Asked,
    adjoint: Adjoint | ContinuousAdjoint,
    frame: Frame,
    events: Sequence[Event],
) -> Task:
    """Return what does not change from step to step, having checked that its parts go together."""
    span, _, stops, limits = frame
    controller, first = read_controller(asked.controller, method, asked.dt), read_first_step(asked.dt, span.t0)
    p = problem.p
    if isinstance(problem, SDEProblem):
        assert isinstance(layout, StochasticLayout)  # it is that of the problem
        check_stochastic(problem, method, layout, adjoint)
        p, limits = with_path(problem, layout, span, limits, controller, first, stored=asked.compiles)
    elif hasattr(method, "noises"):
        raise ValueError(f"{method} is for an `SDEProblem`, got an `{type(problem).__name__}`. Use `Tsit5()`.")
    field = layout.bind(problem.vector_field, p)
    field.check_jacobian(span.t0, y0)
    return Task(
        vector_field=problem.vector_field,
        p=p,
        layout=layout,
        field=field,
        method=method,
        controller=controller,
        limits=limits,
        differentiate=torch.is_grad_enabled(),
        handler=read_events(events, stops, layout, problem.p, field, method) if events else None,
        first=first,
    )


def _run(engine: Engine | Auto, adjoint: Adjoint | ContinuousAdjoint, task: Task, plan: Plan, given: Given) -> Solution:
    """Solve with the engine and the adjoint chosen."""

    def run(engine: Engine) -> Solution:
        if not isinstance(adjoint, ContinuousAdjoint):
            return integrate(task, engine, adjoint, plan, given)
        still, own = replace(task, differentiate=False), plan._replace(dense=isinstance(adjoint, Interpolating | Gauss))
        unrecorded = lambda given: integrate(still, engine, Direct(), own, given)  # noqa: E731
        return differentiable_states(adjoint, task, given, unrecorded, solve)

    return engine.run(task, given.y0, run) if isinstance(engine, Auto) else run(engine)
