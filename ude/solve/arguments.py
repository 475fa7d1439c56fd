"""What the arguments of `solve` mean, having been checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ude._typing import FlatField, State
from ude.methods import SOSRA, SOSRI, AutoSwitch, LambaEM, Rodas5P, StratonovichHeun, Tsit5, Vern7
from ude.methods.method import Method
from ude.problems import EnsembleProblem, ODEProblem, SDEProblem
from ude.solve.adjoints import Adjoint
from ude.solve.auto import Auto
from ude.solve.backend import Backend
from ude.solve.compiled import Compiled
from ude.solve.continuous import ContinuousAdjoint
from ude.solve.controllers import Controller, FixedStep, I
from ude.solve.engines import Eager, Engine
from ude.solve.events import Event, Handler
from ude.solve.events.schedule import Schedule
from ude.solve.flatten import Layout
from ude.solve.loop import Loop

SWITCHING = 50
"""Most numbers per sample for which the default method may go over to implicit steps, which make a Jacobian matrix."""


def check_kinds(problem: object, method: object, adjoint: object, events: object) -> None:
    """Raise if an argument is not the kind of object it must be."""
    if not isinstance(problem, ODEProblem | SDEProblem | EnsembleProblem):
        raise ValueError(
            f"`problem` must be an `ODEProblem`, `SDEProblem` or `EnsembleProblem`, got {type(problem).__name__}. A "
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


def read_events(
    events: Sequence[Event], stops: Schedule, layout: Layout, p: Any, field: FlatField, method: Method
) -> Handler:
    """Return what looks for the events, having checked them."""
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


def refuse_options(**given: bool) -> None:
    """Raise if an option was given that another library's solver would not follow."""
    refused = [name for name, is_given in given.items() if is_given]
    if refused:
        raise ValueError(
            f"A backend does not follow the option(s) {', '.join(f'`{name}`' for name in refused)}. Give options of "
            "the backend to its own object, or use a method of this library."
        )


def default_tolerances(
    problem: ODEProblem | SDEProblem, rtol: float | State | None, atol: float | State | None
) -> tuple[float | State, float | State]:
    """Return the tolerances, those that were not given being usual for the problem."""
    usual = (1e-2, 1e-2) if isinstance(problem, SDEProblem) else (1e-5, 1e-7)
    return usual[0] if rtol is None else rtol, usual[1] if atol is None else atol


def default_method(
    problem: ODEProblem | SDEProblem,
    rtol: float | State,
    y0: Tensor,
    engine: str | Engine | Auto,
    adjoint: Adjoint | ContinuousAdjoint,
) -> Method:
    """Return the method for a solve that names none."""
    if isinstance(problem, SDEProblem):
        return _default_stochastic(problem)
    tight = isinstance(rtol, int | float) and rtol < 1e-6 and y0.real.dtype == torch.float64
    explicit = Vern7() if tight else Tsit5()
    eager = engine == "eager" or isinstance(engine, Eager)
    small = not y0.is_complex() and y0.shape[-1] <= SWITCHING
    # Continuous adjoints go back with the method of the solve, which most of them want explicit.
    switches = eager and small and not isinstance(adjoint, ContinuousAdjoint)
    return AutoSwitch(explicit, Rodas5P()) if switches else explicit


def _default_stochastic(problem: SDEProblem) -> Method:
    if problem.noise == "additive":
        return SOSRA()
    if problem.interpretation == "stratonovich":
        return StratonovichHeun()
    return SOSRI() if problem.noise in ("diagonal", "scalar") else LambaEM()


def read_controller(controller: Controller | None, method: Method, dt: float | Tensor | None) -> Controller:
    """Return the controller to use, having checked that it can work with the method."""
    controls = method.error_order is not None
    if controller is None:
        controller = I() if controls else FixedStep()
    if controller.needs_error and not controls:
        raise ValueError(f"{method} has no error estimate to control its steps. Use `controller=FixedStep()`.")
    if not controller.needs_error and dt is None:
        raise ValueError(f"{method} with constant steps needs their length: give `dt`.")
    return controller


def read_first_step(dt: float | Tensor | None, t0: Tensor) -> Tensor | None:
    """Return the length of the first step of every sample if it is given, having checked it."""
    if dt is None:
        return None
    first = torch.as_tensor(dt, dtype=t0.dtype, device=t0.device).detach().expand(len(t0))
    if not bool(((first > 0) & first.isfinite()).all()):
        raise ValueError(f"`dt` must be a positive finite number, or one per sample, got {dt}.")
    return first


def read_engine(engine: str | Engine | Auto) -> Engine | Auto:
    """Return the engine of a name, or the engine given."""
    if not isinstance(engine, str):
        return engine
    makers: dict[str, Callable[[], Any]] = {"eager": Eager, "compiled": Compiled, "loop": Loop, "auto": Auto}
    if engine not in makers:
        raise ValueError(f"`engine` must be one of {sorted(makers)} or an engine object, got {engine!r}.")
    return makers[engine]()
