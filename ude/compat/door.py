"""`odeint` with torchdiffeq's signature."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ude.compat.adaptive import adaptive
from ude.compat.call import Call, Event, EventFunction, Field, State, Tolerance
from ude.compat.fixed import fixed
from ude.compat.foreign import by_scipy, by_torchdiffeq
from ude.compat.names import ADAMS, ADAPTIVE, FIXED


def odeint(
    func: Field,
    y0: State,
    t: Tensor,
    *,
    rtol: Tolerance = 1e-7,
    atol: Tolerance = 1e-9,
    method: str | None = None,
    options: dict[str, Any] | None = None,
    event_fn: EventFunction | None = None,
) -> Any:
    r"""Solve $\dot y = f(t, y)$, $y(t_0) = y_0$, and return the states at all times `t`.

    Args:
        func: Vector field $f(t, y)$; `t` is a tensor of shape `()` in the precision of the state.
        y0: State at `t[0]`: a tensor of any shape, or a tuple of tensors.
        t: Strictly increasing or decreasing times, shape `(times,)`.
        rtol: Relative tolerance: a number, a tensor that broadcasts to the state, or one per tensor of a tuple.
        atol: Absolute tolerance, in the unit of the state, likewise.
        method: Name of the method, `"dopri5"` by default.
        options: Options of the method, see `AdaptiveOptions`, `GridOptions` and `SciPyOptions`, and `norm`: a function
            that measures the scaled error, of the form of the state.
        event_fn: `g(t, y)`, one or several numbers. The solve ends where the first of them changes its sign; of `t`,
            which must hold two times, the second gives only the direction.

    Returns:
        States in the form of `y0`, with a leading axis of times. Differentiable in `y0`, in `t` and in what `func`
        closes over, unless SciPy makes the steps. With `event_fn` a pair: the time of the event, and the states at the
        start and there; the gradient takes the time as given, see `odeint_event`.

    Raises:
        ArgumentError: If an argument cannot be used; a `ValueError` and an `AssertionError`.
        OdeintError: If the solve fails; a `SolveError` and an `AssertionError`.

    Example:
        >>> import torch
        >>> odeint(lambda t, y: -y, torch.ones(2), torch.tensor([0.0, 1.0]))
        tensor([[1.0000, 1.0000],
                [0.3679, 0.3679]])
    """
    call = Call.read(func, y0, t, rtol, atol, method, options, until_event=event_fn is not None)
    if event_fn is None:
        return call.unpack(integrate(call))
    time, ys = integrate_until(call, call.event(event_fn))
    return time, call.unpack(ys)


def integrate(call: Call) -> Tensor:
    """Return the packed states at all times of a call, shape `(times, *y0.shape)`."""
    if call.method in ADAPTIVE:
        return adaptive(call)
    if call.method in FIXED:
        return fixed(call)
    return by_torchdiffeq(call)[1] if call.method in ADAMS else by_scipy(call)


def integrate_until(call: Call, event: Event) -> tuple[Tensor, Tensor]:
    """Return the time of an event, of the dtype of `t`, and the packed states at the start and there."""
    time, ys = by_torchdiffeq(call, event)
    assert time is not None
    return time.detach(), ys
