"""The door `solve`: checks once, then hands tensors to the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ude._checks import positive
from ude._typing import FlatField, State
from ude.methods import AutoSwitch, Rodas5P, Tsit5, Vern7
from ude.methods.method import Method
from ude.problems import EnsembleProblem, ODEProblem, Solution
from ude.solve.adjoints import Adjoint, Direct, segment_runner
from ude.solve.assemble import assemble
from ude.solve.auto import Auto
from ude.solve.backend import Backend, solve_by_backend
from ude.solve.compiled import Compiled
from ude.solve.continuous import ContinuousAdjoint, Gauss, Interpolating, differentiable_states
from ude.solve.continuous.gradient import Given
from ude.solve.controllers import Controller, FixedStep, I
from ude.solve.engines import Eager, Engine, Task
from ude.solve.ensemble import as_batch
from ude.solve.events import Event, Handler, schedule
from ude.solve.events.schedule import Schedule
from ude.solve.failure import raise_on_failure
from ude.solve.flatten import Layout, broadcast_tolerance
from ude.solve.loop import Loop
from ude.solve.progress import progress_bar
from ude.solve.saving import AtEnd, AtTimes, EveryStep, Saver
from ude.solve.start import start_evaluations
from ude.solve.step import Limits
from ude.solve.times import read_save_at, read_span

SWITCHING = 50
"""Most numbers per sample for which the default method may go over to implicit steps, which make a Jacobian matrix."""


def solve(
    problem: ODEProblem | EnsembleProblem,
    method: Method | Backend | None = None,
    *,
    save_at: Tensor | Sequence[float] | None = None,
    rtol: float | State = 1e-5,
    atol: float | State = 1e-7,
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
    r"""Solve $\dot y = f(t, y)$, $y(t_0) = y_0$, from $t_0$ to $t_1$.

    Steps are as long as the tolerances allow: the root mean square over the components of the estimated error of a
    step, divided by `atol + rtol * |y|`, is at most 1. The result is differentiable in `y0`, `p`, everything that the
    vector field closes over, `save_at` and `t_span`; the gradient is that of the steps as they were made, whose
    lengths count as constants.

    Args:
        problem: What to solve.
        method: Makes the steps; by default `AutoSwitch(Tsit5(), Rodas5P())`, which goes on with implicit steps where
            the problem turns out to be stiff; `Vern7()` in the place of `Tsit5()` where `rtol < 1e-6` in double
            precision. Compiled steps, continuous adjoints, complex states and those of more than 50 numbers per
            sample stay with the explicit method. `TorchDiffEq(...)` and `SciPy(...)` let another library solve.
        save_at: Times of the states to return, of shape `(times,)`, or `(times, batch)` for a batched problem;
            between $t_0$ and $t_1$, both allowed, in the direction of time. By default $t_0$ and the end of every
            step.
        rtol: Relative tolerance: a number, or a tensor that broadcasts to the state.
        atol: Absolute tolerance, in the unit of the state, likewise. Give badly scaled states one each.
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
    _check_kinds(problem, method, adjoint, events)
    if isinstance(problem, EnsembleProblem):
        problem = as_batch(problem)
    layout = Layout.of(problem.y0, batched=problem.batched, jacobian=problem.jacobian)
    y0 = layout.flatten(problem.y0)
    t0, t1 = read_span(problem, y0)
    given, times = read_save_at(save_at, t0, t1, batched=problem.batched)
    field = layout.bind(problem.vector_field, problem.p)
    field.check_jacobian(t0, y0)
    plan_of_stops = schedule(t0.detach(), t1.detach(), stop_at, events)
    limits = _limits(problem.y0, layout, t0, plan_of_stops, rtol, atol, min_step, max_step)
    if isinstance(method, Backend):
        _refuse_options(
            dt=dt is not None,
            controller=controller is not None,
            engine=engine != "eager",
            adjoint=adjoint != Direct(),
            progress=progress,
            min_step=min_step != 0.0,
            max_step=max_step != math.inf,
            stop_at=stop_at is not None,
            events=bool(events),
        )
        solution, reason = solve_by_backend(method, layout, field, y0, (t0, t1), times, (limits.rtol, limits.atol))
    else:
        method = _default_method(rtol, y0, engine, adjoint) if method is None else method
        task = Task(
            vector_field=problem.vector_field,
            p=problem.p,
            layout=layout,
            field=field,
            method=method,
            controller=_controller(controller, method, dt),
            limits=limits,
            differentiate=torch.is_grad_enabled(),
            handler=_handler(events, plan_of_stops, layout, problem.p, field, method) if events else None,
        )
        steps, reason = int(positive("max_steps", max_steps)), ""
        plan = Plan(
            engine=Eager() if isinstance(chosen := _engine(engine), Auto) else chosen,
            adjoint=Direct() if isinstance(adjoint, ContinuousAdjoint) else adjoint,
            max_steps=steps,
            dense=isinstance(adjoint, Interpolating | Gauss) or (dense and not isinstance(adjoint, ContinuousAdjoint)),
            progress=progress,
        )

        def run(engine: Engine) -> Solution:
            own = plan._replace(engine=engine)
            if not isinstance(adjoint, ContinuousAdjoint):
                return _integrate(task, own, y0, (t0, t1), times, dt)
            still = replace(task, differentiate=False)
            return differentiable_states(
                adjoint,
                task,
                Given(y0, t0, t1, times),
                lambda y, span, ts: _integrate(still, own, y, span, ts, dt),
                solve,
            )

        solution = chosen.run(task, y0, run) if isinstance(chosen, Auto) else run(chosen)
    if given is not None:
        solution = replace(solution, ts=given)
    if throw:
        raise_on_failure(solution, problem, reason)
    return solution


class Plan(NamedTuple):
    """How the loop is to run."""

    engine: Engine
    adjoint: Adjoint
    max_steps: int
    dense: bool
    progress: bool


def _integrate(
    task: Task, plan: Plan, y0: Tensor, span: tuple[Tensor, Tensor], times: Tensor | None, dt: float | Tensor | None
) -> Solution:
    """Run the loop over segments and put the result together."""
    t0, t1 = span
    length = (t1 - t0).detach()
    direction = torch.where(length < 0, -1.0, 1.0).to(length)
    if task.handler is not None and not plan.engine.handles_events:
        raise ValueError(
            f'`events` need `engine="eager"`, got {plan.engine}: compiled steps cannot look for them. '
            "Times to stop at without an effect can be given as `stop_at`."
        )
    task = replace(task, first=_first_step(dt, t0))
    engine, point, carries_gradient = plan.engine.start(task, t0, y0)
    evaluations = start_evaluations(task.method, chooses=dt is None and bool((length != 0).any()))
    if task.handler is not None:
        point = point._replace(watch=task.handler.watch(point.t, point.y))
        carries_gradient = task.differentiate
    saver = _saver(times, t0, t1, direction)
    dense = plan.dense and plan.adjoint.keeps_trace
    with progress_bar(t0, t1) if plan.progress else nullcontext() as report:
        keep_states = dense or saver.needs_states
        # Saving on the way makes room for all times in every segment: only where there is one.
        on_the_way = isinstance(saver, AtTimes) and not saver.differentiable and plan.adjoint.keeps_trace and not dense
        save = saver if on_the_way else None
        task = replace(task, differentiate=carries_gradient, keep_states=keep_states, report=report, save=save)
        run = segment_runner(task, engine, saver, keep_trace=dense)
        whole = dense or engine.forgets
        segments = plan.adjoint.run(run, point, plan.max_steps, engine.block, dense=whole)
    only_end = isinstance(saver, AtEnd)
    return assemble(task, point, segments, times, direction, evaluations, t1=t1, only_end=only_end, dense=dense)


def _saver(times: Tensor | None, t0: Tensor, t1: Tensor, direction: Tensor) -> Saver:
    moving = t0.requires_grad or t1.requires_grad or (times is not None and times.requires_grad)
    if times is None:
        return EveryStep(end=t1 if moving else None)
    if not moving and len(times) == 1 and bool((times[0] == t1).all()):
        return AtEnd()
    return AtTimes(ts=times, direction=direction, t0=t0.detach(), differentiable=moving)


def _check_kinds(problem: object, method: object, adjoint: object, events: object) -> None:
    """Raise if an argument is not the kind of object it must be."""
    if not isinstance(problem, ODEProblem | EnsembleProblem):
        raise ValueError(
            f"`problem` must be an `ODEProblem` or `EnsembleProblem`, got {type(problem).__name__}. A "
            "`SteadyStateProblem` is for `solve_steady_state`."
        )
    if method is not None and (isinstance(method, type) or not _is(method, "method")):
        raise ValueError(f"`method` must be a method object such as `Tsit5()` or None, got {method!r}.")
    if isinstance(adjoint, type) or not _is(adjoint, "adjoint"):
        raise ValueError(f"`adjoint` must be an object such as `Direct()` or `Gauss()`, got {adjoint!r}.")
    if not isinstance(events, Sequence):
        raise ValueError(f"`events` must be a list of events, got {type(events).__name__}. Put it into a list.")


_KINDS: dict[str, Any] = {"method": Method | Backend, "adjoint": Adjoint | ContinuousAdjoint}
_known: set[tuple[str, type]] = set()
"""Classes found to be of a kind: looking at all that a protocol asks for takes a while."""


def _is(value: object, kind: str) -> bool:
    """Whether an object is a method or an adjoint."""
    if (kind, type(value)) in _known:
        return True
    found = isinstance(value, _KINDS[kind])
    if found:
        _known.add((kind, type(value)))
    return found


def _handler(
    events: Sequence[Event], stops: Schedule, layout: Layout, p: Any, field: FlatField, method: Method
) -> Handler:
    for event in events:
        if not isinstance(event, Event):
            raise ValueError(
                f"`events` must be a list of events such as `ContinuousEvent(condition=...)`, got a list with "
                f"{type(event).__name__}."
            )
    return Handler(
        events=tuple(events),
        schedule=stops,
        layout=layout,
        p=p,
        field=field,
        method=method,
        differentiate=torch.is_grad_enabled(),
    )


def _refuse_options(**given: bool) -> None:
    """Raise if an option was given that another library's solver would not follow."""
    refused = [name for name, is_given in given.items() if is_given]
    if refused:
        raise ValueError(
            f"A backend does not follow the option(s) {', '.join(f'`{name}`' for name in refused)}. Give options of "
            "the backend to its own object, or use a method of this library."
        )


def _default_method(
    rtol: float | State, y0: Tensor, engine: str | Engine | Auto, adjoint: Adjoint | ContinuousAdjoint
) -> Method:
    tight = isinstance(rtol, int | float) and rtol < 1e-6 and y0.real.dtype == torch.float64
    explicit = Vern7() if tight else Tsit5()
    eager = engine == "eager" or isinstance(engine, Eager)
    small = not y0.is_complex() and y0.shape[-1] <= SWITCHING
    # Continuous adjoints go back with the method of the solve, which most of them want explicit.
    switches = eager and small and not isinstance(adjoint, ContinuousAdjoint)
    return AutoSwitch(explicit, Rodas5P()) if switches else explicit


def _controller(controller: Controller | None, method: Method, dt: float | Tensor | None) -> Controller:
    """Return the controller to use, having checked that it can work with the method."""
    controls = method.error_order is not None
    if controller is None:
        controller = I() if controls else FixedStep()
    if controller.needs_error and not controls:
        raise ValueError(f"{method} has no error estimate to control its steps. Use `controller=FixedStep()`.")
    if not controller.needs_error and dt is None:
        raise ValueError(f"{method} with constant steps needs their length: give `dt`.")
    return controller


def _limits(
    y0: State,
    layout: Layout,
    t0: Tensor,
    stops: Schedule,
    rtol: float | State,
    atol: float | State,
    min_step: float,
    max_step: float,
) -> Limits:
    eps = torch.finfo(t0.dtype).eps
    t0 = t0.detach()
    if not 0.0 <= min_step <= max_step or max_step == 0.0 or min_step == math.inf:
        raise ValueError(
            f"Steps need 0 <= min_step <= max_step, min_step finite, max_step positive, got {min_step}, {max_step}."
        )
    return Limits(
        stops=stops.times,
        before=stops.before,
        floor=eps**2 * (stops.times[-1] - t0).abs(),
        rtol=broadcast_tolerance("rtol", rtol, layout, y0, t0),
        atol=broadcast_tolerance("atol", atol, layout, y0, t0),
        shortest=t0.new_tensor(min_step),
        longest=t0.new_tensor(max_step),
    )


def _first_step(dt: float | Tensor | None, t0: Tensor) -> Tensor | None:
    """Return the length of the first step of every sample if it is given, having checked it."""
    if dt is None:
        return None
    first = torch.as_tensor(dt, dtype=t0.dtype, device=t0.device).detach().expand(len(t0))
    if not bool(((first > 0) & first.isfinite()).all()):
        raise ValueError(f"`dt` must be a positive finite number, or one per sample, got {dt}.")
    return first


def _engine(engine: str | Engine | Auto) -> Engine | Auto:
    if not isinstance(engine, str):
        return engine
    makers: dict[str, Callable[[], Any]] = {"eager": Eager, "compiled": Compiled, "loop": Loop, "auto": Auto}
    if engine not in makers:
        raise ValueError(f"`engine` must be one of {sorted(makers)} or an engine object, got {engine!r}.")
    return makers[engine]()
