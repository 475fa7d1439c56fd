"""Methods that control the lengths of their steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ude.compat.call import Call, Event
from ude.compat.callbacks import Watch, Watched
from ude.compat.control import Control
from ude.compat.errors import ArgumentError, OdeintError
from ude.compat.options import UNBOUNDED, AdaptiveOptions, read_options
from ude.compat.wrapped import Normed
from ude.methods import Method
from ude.problems import ODEProblem, Solution, SolveError, Status
from ude.solve import Eager, solve
from ude.solve.events import ContinuousEvent, PresetTimes


def adaptive(call: Call, *, dense: bool = False) -> Solution:
    """Return the solution of a call, with the packed states at all of its times.

    Args:
        call: What to solve.
        dense: Keep the continuous solution.

    Raises:
        OdeintError: If the solve fails.
    """
    options = read_options(AdaptiveOptions, call.options, call.method)
    most = options.max_num_steps * max(len(call.t) - 1, 1)
    # The end alone needs no record of the steps: that is what the backward solve asks for, interval by interval.
    only_end = len(call.t) == 2
    saved = call.t[1:] if only_end else call.t
    solution = _solve(call, options, (call.t[0], call.t[-1]), saved, most, dense=dense)
    if options.max_num_steps < UNBOUNDED:
        _check_count(solution, call.t, options.max_num_steps)
    return replace(solution, ys=torch.cat([call.y0.unsqueeze(0), solution.ys])) if only_end else solution


def adaptive_until(call: Call, event: Event) -> tuple[Tensor, Tensor]:
    """Return the time of an event and the packed states at the start and there; the time is a constant.

    Raises:
        OdeintError: If the solve fails, or no event comes.
    """
    options = read_options(AdaptiveOptions, call.options, call.method)
    if already(call, event):
        return call.t[0].detach(), torch.stack([call.y0, call.y0])
    # Farther than any event, and not so far that the least step, a fraction of the interval, would matter.
    reach = torch.finfo(call.y0.real.dtype).eps ** -0.8
    end = call.t[0].detach() + (call.t[1] - call.t[0]).detach().sign() * reach
    watched = [ContinuousEvent(condition=torch.no_grad()(event), terminate=True)]
    solution = _solve(call, options, (call.t[0], end), end.unsqueeze(0), options.max_num_steps, watched)
    if solution.status != Status.TERMINATED or solution.events is None:
        raise OdeintError(f"No event was met until t = {float(end):.3g}. Does `event_fn` change its sign?", solution)
    # Jumps on the way are events too; this one came last.
    return at_event(call, solution.events.ts[-1].detach(), solution.events.before[-1])


def at_event(call: Call, time: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a call gives back for an event.

    Args:
        call: The call.
        time: Of the event, a constant.
        state: There, at a constant distance from the start: where the start moves, so does its time.
    """
    if call.t.requires_grad:
        slope = call.field(time.to(state.real.dtype), state.detach()).detach()
        state = state - slope * (call.t[0] - call.t[0].detach()).to(state.real.dtype)
    return time.to(call.t.dtype), torch.stack([call.y0, state])


def adaptive_dense(call: Call) -> Callable[[Tensor], Tensor]:
    """Return the packed continuous solution of a call.

    Raises:
        OdeintError: If the solve fails.
    """
    options = read_options(AdaptiveOptions, call.options, call.method)
    return _solve(call, options, (call.t[0], call.t[-1]), call.t[-1:], options.max_num_steps, dense=True)


def already(call: Call, event: Event) -> bool:
    """Return whether an event is met at the start."""
    with torch.no_grad():
        return bool(event(call.t[0].to(call.y0.real.dtype), call.y0) == 0)


def _solve(
    call: Call,
    options: AdaptiveOptions,
    t_span: tuple[Tensor, Tensor],
    save_at: Tensor,
    max_steps: int,
    events: Sequence[ContinuousEvent] = (),
    *,
    dense: bool = False,
) -> Solution:
    """Solve with the options of a call."""
    watch = Watch(call.callbacks, options.min_step) if call.callbacks.functions else None
    # A compiled step is found again by the user's own function: the one on the packed state is new in every call.
    is_packed = options.engine == "eager"
    if watch is not None and not is_packed and not isinstance(options.engine, Eager):
        names = ", ".join(call.callbacks.functions)
        raise ArgumentError(f"Compiled steps cannot call {names}: solve with the engine 'eager', or without callbacks.")
    field, y0 = (call.field, call.y0) if is_packed else (call.func, call.unpack(call.y0))
    jumps = [] if options.jump_t is None else [PresetTimes(options.jump_t)]
    try:
        solution = solve(
            ODEProblem(field, y0, t_span),
            _method(call, options, watch),
            save_at=save_at,
            rtol=call.rtol,
            atol=call.atol,
            dt=options.first_step,
            controller=Control(
                safety=float(options.safety),
                ifactor=float(options.ifactor),
                dfactor=float(options.dfactor),
                watch=watch,
            ),
            dense=dense,
            max_steps=min(max_steps, UNBOUNDED),
            min_step=float(options.min_step),
            max_step=float(options.max_step),
            stop_at=options.step_t,
            engine=options.engine,
            events=[*events, *jumps],
        )
    except SolveError as error:
        raise OdeintError.of(error) from error
    if is_packed or call.packing is None:
        return solution
    return replace(solution, ys=call.packing.pack(solution.ys, lead=1))


def _method(call: Call, options: AdaptiveOptions, watch: Watch | None) -> Method:
    assert call.stepper is not None
    method = call.stepper
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
