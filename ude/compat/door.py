"""`odeint` with torchdiffeq's signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ude.compat.adaptive import adaptive, adaptive_dense, adaptive_until
from ude.compat.call import Call, Event, EventFunction, Field, State, Tolerance
from ude.compat.clock import Clock
from ude.compat.errors import ArgumentError
from ude.compat.fixed import fixed, fixed_until
from ude.compat.foreign import by_scipy, by_torchdiffeq
from ude.compat.names import ADAMS, ADAPTIVE, FIXED
from ude.compat.regularized import Regularized, refuse_event
from ude.methods import Method
from ude.regularize.regularizer import Regularizer


def odeint(
    func: Field,
    y0: State,
    t: Tensor,
    *,
    rtol: Tolerance = 1e-7,
    atol: Tolerance = 1e-9,
    method: str | Method | None = None,
    options: dict[str, Any] | None = None,
    event_fn: EventFunction | None = None,
    regularizer: Regularizer | None = None,
) -> Any:
    r"""Solve $\dot y = f(t, y)$, $y(t_0) = y_0$, and return the states at all times `t`.

    Args:
        func: Vector field $f(t, y)$; `t` is a tensor of shape `()` in the precision of the state.
        y0: State at `t[0]`: a tensor of any shape, or a tuple of tensors.
        t: Strictly increasing or decreasing times, shape `(times,)`.
        rtol: Relative tolerance: a number, a tensor that broadcasts to the state, or one per tensor of a tuple.
        atol: Absolute tolerance, in the unit of the state, likewise.
        method: Name of the method, `"dopri5"` by default, or a method of this library such as `Rodas5P()`.
        options: Options of the method, see `AdaptiveOptions`, `GridOptions` and `SciPyOptions`, and `norm`: a function
            that measures the scaled error, of the form of the state.
        event_fn: `g(t, y)`, one or several numbers. The solve ends where the first of them changes its sign; of `t`,
            which must hold two times, the second gives only the direction.
        regularizer: A cost of the trajectory, such as `ude.regularize.ErrorEstimate()`. The steps stay as they are.

    Returns:
        States in the form of `y0`, with a leading axis of times. Differentiable in `y0`, in `t` and in what `func`
        closes over, unless SciPy makes the steps. With `event_fn` a pair: the time of the event, and the states at the
        start and there; the gradient takes the time as given, see `odeint_event`. With `regularizer` a pair: the states
        and an `Info` with the cost, the counts of evaluations, and the steps.

    Raises:
        ArgumentError: If an argument cannot be used; a `ValueError` and an `AssertionError`.
        OdeintError: If the solve fails; a `SolveError` and an `AssertionError`.

    Example:
        >>> import torch
        >>> odeint(lambda t, y: -y, torch.ones(2), torch.tensor([0.0, 1.0]))
        tensor([[1.0000, 1.0000],
                [0.3679, 0.3679]])
    """
    if regularizer is not None:
        refuse_event(event_fn)
        task = Regularized.read(regularizer, func, y0, t, rtol, atol, method, options)
        solution = task.solve()
        return task.result(solution, solution.ys)
    call = Call.read(func, y0, t, rtol, atol, method, options, until_event=event_fn is not None)
    if event_fn is None:
        return call.unpack(integrate(call))
    time, ys = integrate_until(call, call.event(event_fn))
    return time, call.unpack(ys)


def odeint_dense(
    func: Field,
    y0: State,
    t0: float | Tensor,
    t1: float | Tensor,
    *,
    rtol: Tolerance = 1e-7,
    atol: Tolerance = 1e-9,
    method: str | Method | None = None,
    options: dict[str, Any] | None = None,
) -> Callable[[Tensor], Any]:
    """Solve from `t0` to `t1` and return the solution as a function of time.

    Args:
        func: Vector field, as in `odeint`.
        y0: State at `t0`: a tensor or a tuple of tensors.
        t0: Start.
        t1: End; may lie before the start.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        method: A method that controls its steps, `"dopri5"` by default.
        options: Options of the method.

    Returns:
        A function from a time, or several of shape `(times,)`, to states in the form of `y0`.

    Raises:
        ArgumentError: If an argument cannot be used.
        OdeintError: If the solve fails.

    Example:
        >>> import torch
        >>> y = odeint_dense(lambda t, y: -y, torch.ones(2), 0.0, 1.0)
        >>> y(torch.tensor(0.5))
        tensor([0.6065, 0.6065])
    """
    part = y0 if isinstance(y0, Tensor) else y0[0]
    ends = [x if isinstance(x, Tensor) else torch.tensor(x, dtype=part.real.dtype) for x in (t0, t1)]
    call = Call.read(func, y0, torch.stack(ends), rtol, atol, method, options)
    if call.stepper is None:
        raise ArgumentError(f"A continuous solution needs one of {', '.join(ADAPTIVE)}, got {call.method}.")
    clock = Clock.of(call)
    with clock.explained():
        solution = adaptive_dense(clock.call(call))
    return lambda t: call.unpack(solution(clock.elapsed(torch.as_tensor(t))))


def integrate(call: Call) -> Tensor:
    """Return the packed states at all times of a call, shape `(times, *y0.shape)`."""
    if call.stepper is not None:
        clock = Clock.of(call)
        with clock.explained():
            return adaptive(clock.call(call)).ys
    if call.method in FIXED:
        return fixed(call).ys
    return by_torchdiffeq(call)[1] if call.method in ADAMS else by_scipy(call)


def integrate_until(call: Call, event: Event) -> tuple[Tensor, Tensor]:
    """Return the time of an event, of the dtype of `t`, and the packed states at the start and there."""
    if call.stepper is not None:
        clock = Clock.of(call)
        with clock.explained():
            elapsed, ys = adaptive_until(clock.call(call), clock.event(event))
        return clock.time(elapsed).to(call.t.dtype), ys
    if call.method in FIXED:
        return fixed_until(call, event)
    if call.method not in ADAMS:
        raise ArgumentError(f"`{call.method}` cannot look for events. Use a method of another name, such as 'dopri5'.")
    time, ys = by_torchdiffeq(call, event)
    assert time is not None
    return time.to(call.t.dtype).detach(), ys
