"""`odeint_event` with torchdiffeq's signature: solves whose end depends on the solution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ude import ad
from ude.compat.call import Call, Event, EventFunction, Field, State
from ude.compat.door import odeint


def odeint_event(
    func: Field,
    y0: State,
    t0: Tensor,
    *,
    event_fn: EventFunction,
    reverse_time: bool = False,
    odeint_interface: Callable[..., Any] = odeint,
    **kwargs: Any,  # torchdiffeq's signature
) -> tuple[Tensor, Any]:
    r"""Solve from `t0` until an event, and differentiate the time of the event as well.

    At the event $g(t, y(t)) = 0$. With the state as a function $y(t; \theta)$ of whatever it depends on,

    $$ \mathrm dt = -\frac{\partial_\theta g + \partial_y g\; \partial_\theta y}{\partial_t g + \partial_y g\, f}\,
       \mathrm d\theta, \qquad \mathrm dy = \partial_\theta y\, \mathrm d\theta + f\, \mathrm dt. $$

    Tensors that `event_fn` closes over belong to $\theta$ too. Once differentiable.

    Args:
        func: Vector field, as in `odeint`.
        y0: State at `t0`: a tensor or a tuple of tensors.
        t0: Start, one number.
        event_fn: $g(t, y)$; with several numbers, the first that is zero ends the solve.
        reverse_time: Go back in time.
        odeint_interface: `odeint` or `odeint_adjoint`.
        **kwargs: Arguments of `odeint_interface`.

    Returns:
        The time of the event, of the dtype of `t0`, and the states at `t0` and at the event.
    """
    start = t0.reshape(-1)
    t = torch.cat([start, start.detach() + (-1.0 if reverse_time else 1.0)])
    time, solution = odeint_interface(func, y0, t, event_fn=event_fn, **kwargs)
    call = Call.read(func, y0, t, 0.0, 0.0, None, None)
    rows = call.packing.pack(solution, lead=1) if call.packing else solution
    time, state = _linked(call, call.event(event_fn), time, rows[-1])
    return time, call.unpack(torch.cat([rows[:-1], state.unsqueeze(0)]))


def _linked(call: Call, event: Event, time: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return time and state of an event, given the state as a function of everything but the time."""
    now, known = time.detach().to(state.real.dtype), state.detach()
    slope = call.field(now, known).detach()
    with torch.enable_grad():
        shift = torch.zeros_like(now, requires_grad=True)
        value = event(now + shift, known + shift * slope)
        rate = ad.grad(value, [shift])[0] if value.requires_grad else torch.zeros_like(now)
    residual = event(now, state)
    # Where the solution only touches the zero the time has no derivative.
    moves = torch.where(rate == 0, torch.zeros_like(now), -(residual - residual.detach()) / rate)
    return time.detach() + moves.to(time.dtype), state + slope * moves
