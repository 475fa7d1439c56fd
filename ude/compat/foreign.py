"""Methods that other libraries carry out."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ude.compat.call import Call, Event
from ude.compat.errors import OdeintError
from ude.compat.options import SciPyOptions, read_options
from ude.problems import ODEProblem, SolveError
from ude.solve import SciPy, solve


def by_torchdiffeq(call: Call, event: Event | None = None) -> tuple[Tensor | None, Tensor]:
    """Let torchdiffeq carry out a call.

    Returns:
        Time of the event, None without one, and the packed states.
    """
    import torchdiffeq

    def field(t: Tensor, y: Tensor) -> Tensor:
        return call.field(t, y)

    for name in call.callbacks.functions:
        setattr(field, name, partial(call.callbacks.call, name))
    options = call.options if call.norm is None else {**call.options, "norm": call.norm}
    result = torchdiffeq.odeint(
        field,
        call.y0,
        call.t,
        rtol=call.rtol,  # pyright: ignore[reportArgumentType]  # tensors are allowed, the annotation is narrow
        atol=call.atol,  # pyright: ignore[reportArgumentType]
        method=call.method,
        options=options,
        event_fn=event,
    )
    time, ys = (None, result) if event is None else result
    assert isinstance(ys, Tensor)
    return time, ys


@torch.no_grad()
def by_scipy(call: Call) -> Tensor:
    """Return what SciPy makes of a call; without gradient, as with torchdiffeq.

    Raises:
        OdeintError: If SciPy gives up.
    """
    options = read_options(SciPyOptions, call.options, call.method, ignored=("grid_points", "eps"))
    if options.min_step:  # which our SciPy backend does not have
        return by_torchdiffeq(call)[1]
    try:
        return solve(
            ODEProblem(call.field, call.y0, (call.t[0], call.t[-1])),
            SciPy(options.solver, max_step=float(options.max_step)),
            save_at=call.t,
            rtol=call.rtol,
            atol=call.atol,
        ).ys
    except SolveError as error:
        raise OdeintError.of(error) from error
