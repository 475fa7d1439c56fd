"""Methods that control the lengths of their steps."""

from __future__ import annotations

import torch
from torch import Tensor

from ude.compat.call import Call
from ude.compat.callbacks import Watch, Watched
from ude.compat.control import Control
from ude.compat.errors import OdeintError
from ude.compat.foreign import by_torchdiffeq
from ude.compat.names import ADAPTIVE
from ude.compat.options import UNBOUNDED, AdaptiveOptions, read_options
from ude.compat.wrapped import Normed
from ude.methods import Method
from ude.problems import ODEProblem, Solution, SolveError
from ude.solve import solve


def adaptive(call: Call) -> Tensor:
    """Return the packed states at the times of a call.

    Raises:
        OdeintError: If the solve fails.
    """
    options = read_options(AdaptiveOptions, call.options, call.method)
    if options.step_t is not None or options.jump_t is not None or options.min_step or options.max_step < float("inf"):
        return by_torchdiffeq(call)[1]
    watch = Watch(call.callbacks) if call.callbacks.functions else None
    control = Control(
        safety=float(options.safety), ifactor=float(options.ifactor), dfactor=float(options.dfactor), watch=watch
    )
    try:
        solution = solve(
            ODEProblem(call.field, call.y0, (call.t[0], call.t[-1])),
            _method(call, watch),
            save_at=call.t,
            rtol=call.rtol,
            atol=call.atol,
            dt=options.first_step,
            controller=control,
            dense=False,
            max_steps=min(options.max_num_steps * max(len(call.t) - 1, 1), UNBOUNDED),
        )
    except SolveError as error:
        raise OdeintError.of(error) from error
    if options.max_num_steps < UNBOUNDED:
        _check_count(solution, call.t, options.max_num_steps)
    return solution.ys


def _method(call: Call, watch: Watch | None) -> Method:
    method: Method = ADAPTIVE[call.method]
    if call.norm is not None:
        method = Normed(method, call.norm, call.y0.shape, call.rtol, call.atol)
    return method if watch is None else Watched(method, watch)


def _check_count(solution: Solution, t: Tensor, most: int) -> None:
    """Raise if more than `most` attempts were made between two output times; the loop counts all of them together."""
    direction = -1.0 if bool(t[-1] < t[0]) else 1.0
    starts = (solution.steps.t * direction).contiguous()
    # A step that starts at an output time is made for the next one.
    interval = torch.searchsorted((t.detach() * direction).to(starts).contiguous(), starts, right=True)
    taken = int(interval.bincount().max()) if len(interval) else 0
    if taken > most:
        raise OdeintError(
            f"max_num_steps exceeded ({taken}>={most}) between two output times: raise it, or loosen `rtol` and `atol`",
            solution,
        )
