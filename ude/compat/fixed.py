"""Methods that step on a given grid."""

from __future__ import annotations

from torch import Tensor

from ude.compat.call import Call
from ude.compat.grid import OnGrid, check_grid, even_grid, positions
from ude.compat.names import FIXED
from ude.compat.options import GridOptions, read_options
from ude.problems import ODEProblem
from ude.solve import FixedStep, solve


def fixed(call: Call) -> Tensor:
    """Return the packed states at the times of a call; not finite where a step left the domain of the vector field."""
    options = read_options(GridOptions, call.options, call.method)
    grid = _grid(call, options)
    steps = len(grid) - 1
    solution = solve(
        ODEProblem(call.field, call.y0, (0.0, float(steps))),
        OnGrid(FIXED[call.method], grid, options.interp == "cubic", options.perturb, call.callbacks),
        save_at=positions(grid, call.t),
        dt=1.0,
        controller=FixedStep(),
        dense=False,
        max_steps=steps + 1,
        throw=False,
    )
    return solution.ys


def _grid(call: Call, options: GridOptions) -> Tensor:
    if options.step_size is not None:
        return even_grid(call.t, options.step_size)
    if options.grid_constructor is not None:
        grid = options.grid_constructor(call.field, call.y0, call.t)
        check_grid(grid, call.t)
        return grid
    return call.t
