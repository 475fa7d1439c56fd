"""Steps from one point of a given grid to the next, the whole grid in one solve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.compat.callbacks import Callbacks
from ude.compat.errors import ArgumentError
from ude.compat.wrapped import Wrapped
from ude.methods import Carry, StepResult, Tolerances
from ude.methods.method import take_step

GridConstructor = Callable[[FlatField, Tensor, Tensor], Tensor]
"""`grid_constructor(func, y0, t)`: the ends of all steps, from `t[0]` to `t[-1]`."""


def even_grid(t: Tensor, step_size: float | Tensor) -> Tensor:
    """Return points at distance `step_size` from `t[0]` on; the last one is `t[-1]`."""
    length = (t[-1] - t[0]).detach()
    count = int(torch.ceil(length.abs() / step_size + 1))
    grid = t[0] + torch.copysign(torch.arange(count, dtype=t.dtype, device=t.device) * step_size, length)
    return torch.cat([grid[:-1], t[-1:]])


def check_grid(grid: Tensor, t: Tensor) -> None:
    """Raise unless a grid made by a user's function begins and ends with `t`."""
    if not (grid.ndim == 1 and len(grid) and bool((grid[0] == t[0]) & (grid[-1] == t[-1]))):
        ends = f"[{float(grid[0]):.6g}, {float(grid[-1]):.6g}]" if grid.ndim == 1 and len(grid) else tuple(grid.shape)
        raise ArgumentError(
            f"`grid_constructor` must return a 1-D tensor from t[0] = {float(t[0]):.6g} to t[-1] = {float(t[-1]):.6g}, "
            f"got {ends}."
        )


def positions(grid: Tensor, t: Tensor) -> Tensor:
    """Return times as positions on the grid: 2.5 lies in the middle between points 2 and 3.

    They carry the gradient of `t` and the grid where a time lies between two points. At a point there is none: there
    the lengths of the steps carry it.
    """
    direction = -1.0 if bool(grid[-1] < grid[0]) else 1.0
    end = torch.searchsorted((direction * grid).detach().contiguous(), (direction * t).detach().contiguous())
    on_grid = t.detach() == grid.detach()[end]
    if bool(on_grid.all()):
        return end.to(t.dtype)
    start = (end - 1).clamp(min=0)
    length = torch.where(on_grid, 1.0, grid[end] - grid[start])
    return torch.where(on_grid, end.to(t.dtype), start + (t - grid[start]) / length)


@dataclass(frozen=True, slots=True)
class OnGrid(Wrapped):
    r"""A method on the axis of positions $s$: its steps of length 1 go from grid point $t_s$ to $t_{s+1}$.

    A step from $s$ is one of the method inside from $t_s$, of length $h = t_{s+1} - t_s$. The grid is part of the
    method: its distances may differ, and carry gradients. Between the points the state lies on a line, or on the cubic

    $$ y_s + \theta (1 - \theta)^2\, h f_s + \theta^2 (3 - 2\theta)\, (y_{s+1} - y_s)
       + \theta^2 (\theta - 1)\, h f_{s+1} $$

    with the right values and slopes at both of them.

    Args:
        grid: The points, shape `(points,)`.
        cubic: Which of the two.
        perturb: Evaluate at the next number after the start and before the end of a step, so that a jump of the vector
            field at a grid point belongs to one step only.
        between: States between the points are asked for.
        callbacks: To be told of every step.
    """

    grid: Tensor
    cubic: bool
    perturb: bool
    between: bool
    callbacks: Callbacks

    @property
    def dense_evaluations(self) -> int:
        """Extra evaluations made by `dense_stages`: the slope at the end."""
        return int(self.cubic)

    def step_within(
        self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry, tolerances: Tolerances
    ) -> StepResult:
        """Take one step from position `t` to `t + 1`."""
        start, end = self._ends(t)
        length = end - start
        # A step of no length is the loop's second look at a step that failed.
        if self.callbacks.functions and bool((dt != 0).any()):
            self.callbacks.call("callback_step", start, y, length)
        result = take_step(self.method, self._field(f, start, end, y), start, length, y, carry, tolerances)
        return result._replace(error=None, stages=self._stages(y, length, result) if self.between else ())

    def _stages(self, y: Tensor, length: Tensor, result: StepResult) -> tuple[Tensor, ...]:
        return (length.to(y.dtype) * result.stages[0], result.y1 - y)

    def dense_stages(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, step: StepResult) -> tuple[Tensor, ...]:
        """Return the stages that `dense_weights` refers to."""
        if not self.cubic:
            return step.stages
        start, end = self._ends(t)
        return (*step.stages, (end - start).to(y.dtype) * f(end.to(t.dtype), step.y1))

    def dense_weights(self, theta: Tensor) -> Tensor:
        """Weights of the line or the cubic, shape `(stages, *theta.shape)`."""
        if not self.cubic:
            return torch.stack([torch.zeros_like(theta), theta])
        rest = 1 - theta
        return torch.stack([theta * rest * rest, theta * theta * (3 - 2 * theta), -theta * theta * rest])

    def _ends(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return start and end of the step at a position, of shape `(1,)`."""
        if position.device.type != "cpu":  # without waiting for the device
            index = position.detach().round().long().clamp(max=len(self.grid) - 2)
            return self.grid[index], self.grid[index + 1]
        index = min(round(float(position.detach())), len(self.grid) - 2)
        return self.grid[index : index + 1], self.grid[index + 1 : index + 2]

    def _field(self, f: FlatField, start: Tensor, end: Tensor, y: Tensor) -> FlatField:
        """Return the vector field as a function of a time in the dtype of the grid."""
        dtype = y.real.dtype
        if not self.perturb:
            return f if dtype == self.grid.dtype else lambda t, y: f(t.to(dtype), y)

        def field(t: Tensor, y: Tensor) -> Tensor:
            time = t.to(dtype)
            nudged = torch.where(t == start, torch.nextafter(time, end.to(time)), time)
            nudged = torch.where(t == start + (end - start), torch.nextafter(end.to(time), start.to(time)), nudged)
            return f(time + (nudged - time).detach(), y)

        return field
