"""Methods that step on a given grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ude.compat.adaptive import already, at_event
from ude.compat.call import Call, Event
from ude.compat.errors import ArgumentError, OdeintError
from ude.compat.grid import OnGrid, check_grid, even_grid, positions
from ude.compat.names import FIXED
from ude.compat.options import GridOptions, read_options
from ude.problems import ODEProblem, Solution, Status
from ude.solve import FixedStep, solve
from ude.solve.events import ContinuousEvent
from ude.solve.interpolant import Interpolant

MOST_STEPS = 20_000
"""Steps after which the search for an event is given up."""


def fixed(call: Call, *, dense: bool = False) -> Solution:
    """Return the solution of a call, with the packed states at all of its times.

    They are not finite where a step left the domain of the vector field.

    Args:
        call: What to solve.
        dense: Keep the continuous solution, which then is the cubic one whatever the option `interp` says of the states
            returned, and give steps and continuous solution in the user's times; else in positions on the grid.
    """
    options = read_options(GridOptions, call.options, call.method)
    grid = _grid(call, options)
    only_end = len(call.t) == 2  # it alone needs no record of the steps
    saved = positions(grid, call.t[1:] if only_end else call.t)
    solution = _solve(call, options, grid, saved, dense=dense)
    if only_end:
        solution = replace(solution, ys=torch.cat([call.y0.unsqueeze(0), solution.ys]))
    return _in_time(solution, grid) if dense else solution


def fixed_until(call: Call, event: Event) -> tuple[Tensor, Tensor]:
    """Return the time of an event and the packed states at the start and there; the time is a constant.

    Raises:
        ArgumentError: If the options do not say how long the steps are.
        OdeintError: If no event comes within 20 000 steps.
    """
    options = read_options(GridOptions, call.options, call.method)
    if options.step_size is None:
        raise ArgumentError(
            "Event handling for fixed step solvers currently requires `step_size` to be provided in options."
        )
    if already(call, event):
        return call.t[0].detach(), torch.stack([call.y0, call.y0])
    length = (call.t[1] - call.t[0]).detach().sign() * options.step_size
    grid = call.t[0] + length * torch.arange(MOST_STEPS + 1, dtype=call.t.dtype, device=call.t.device)

    @torch.no_grad()
    def condition(position: Tensor, y: Tensor) -> Tensor:
        return event((call.t[0] + length * position).to(position.dtype), y)

    watched = ContinuousEvent(condition=condition, terminate=True, interior=0)
    end = torch.tensor([float(MOST_STEPS)], dtype=call.t.dtype, device=call.t.device)
    solution = _solve(call, options, grid, end, [watched])
    if solution.status != Status.TERMINATED or solution.events is None:
        reason = f"Reached maximum number of iterations {MOST_STEPS}."
        raise OdeintError(f"{reason} Take a longer `step_size`; does `event_fn` change its sign?", solution)
    time = call.t[0].detach() + length * solution.events.ts[0].detach()
    return at_event(call, time, solution.events.before[0])


def _solve(
    call: Call,
    options: GridOptions,
    grid: Tensor,
    save_at: Tensor,
    events: Sequence[ContinuousEvent] = (),
    *,
    dense: bool = False,
) -> Solution:
    """Step over a grid on the axis of its positions."""
    steps = len(grid) - 1
    between = dense or bool(events) or bool((save_at != save_at.round()).any())
    return solve(
        ODEProblem(call.field, call.y0, (0.0, float(steps))),
        OnGrid(FIXED[call.method], grid, options.interp == "cubic", options.perturb, between, call.callbacks),
        save_at=save_at,
        dt=1.0,
        controller=FixedStep(),
        dense=dense,
        max_steps=steps + 1,
        events=events,
        throw=False,
    )


def _in_time(solution: Solution, grid: Tensor) -> Solution:
    """Return a solution on the axis of positions with its steps and its continuous extension in time."""
    made, interpolant = len(solution.steps.t), solution.interpolant
    steps = replace(solution.steps, t=grid[:made].detach(), dt=grid.detach().diff()[:made])
    assert isinstance(interpolant, Interpolant)
    method = interpolant.task.method
    assert isinstance(method, OnGrid)
    interpolant = replace(interpolant, task=replace(interpolant.task, method=replace(method, cubic=True)))

    def states(t: Tensor) -> Tensor:
        # Starts plus lengths of steps may miss their ends by rounding.
        return interpolant(positions(grid, t.to(grid).clamp(grid.detach().min(), grid.detach().max())))

    return replace(solution, steps=steps, interpolant=states)


def _grid(call: Call, options: GridOptions) -> Tensor:
    if options.step_size is not None:
        return even_grid(call.t, options.step_size)
    if options.grid_constructor is not None:
        grid = options.grid_constructor(call.field, call.y0, call.t)
        check_grid(grid, call.t)
        return grid
    return call.t
