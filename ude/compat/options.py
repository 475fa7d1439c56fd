"""The dictionary `options`, read into values."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from ude.compat.errors import ArgumentError
from ude.compat.grid import GridConstructor
from ude.solve.engines import Engine

UNBOUNDED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveOptions:
    """Options of methods that control their steps.

    Args:
        first_step: Length of the first step; chosen by the size of the state and the vector field if None.
        safety: Factor on the step that the error allows.
        ifactor: Most that a step may grow.
        dfactor: Most that a rejected step may shrink.
        max_num_steps: Most attempts between two output times.
        min_step: Steps are not made shorter for their error; what comes is taken.
        max_step: No step is longer.
        step_t: Times at which a step ends.
        jump_t: Times at which a step ends and the vector field may jump.
        dtype: Of time. Time has the precision of the state here, whatever is given.
        engine: `"eager"`, or `"compiled"` or `"loop"` for a step or a whole solve compiled by `torch.compile`; not in
            torchdiffeq. The backward solve of `odeint_adjoint` is always eager.
    """

    first_step: float | Tensor | None = None
    safety: float = 0.9
    ifactor: float = 10.0
    dfactor: float = 0.2
    max_num_steps: int = UNBOUNDED
    min_step: float = 0.0
    max_step: float = float("inf")
    step_t: Tensor | None = None
    jump_t: Tensor | None = None
    dtype: torch.dtype = torch.float64
    engine: str | Engine = "eager"

    def __post_init__(self) -> None:
        if not (isinstance(self.dtype, torch.dtype) and self.dtype.is_floating_point):
            raise ArgumentError(f"options['dtype'] must be a floating-point dtype, got {self.dtype}.")
        times = [torch.as_tensor(given).flatten().tolist() for given in (self.step_t, self.jump_t) if given is not None]
        if len({time for row in times for time in row}) < sum(map(len, times)):
            raise ArgumentError("`step_t` and `jump_t` must not have any repeated elements between them.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GridOptions:
    """Options of methods that step on a grid, which is `t` itself by default.

    Args:
        step_size: Distance of the points of the grid.
        grid_constructor: Makes the grid instead.
        interp: Between the points: `"linear"` or `"cubic"`.
        perturb: Evaluate next to the ends of a step, on its own side.
    """

    step_size: float | Tensor | None = None
    grid_constructor: GridConstructor | None = None
    interp: str = "linear"
    perturb: bool = False

    def __post_init__(self) -> None:
        if self.step_size is not None and self.grid_constructor is not None:
            raise ArgumentError("step_size and grid_constructor are mutually exclusive arguments.")
        if self.interp not in ("linear", "cubic"):
            raise ArgumentError(f"Unknown interpolation method {self.interp}: must be 'linear' or 'cubic'.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SciPyOptions:
    """Options of `scipy_solver`.

    Args:
        solver: `"LSODA"`, `"RK45"`, `"RK23"`, `"DOP853"`, `"Radau"` or `"BDF"`.
        min_step: Least step, for LSODA.
        max_step: Longest step.
    """

    solver: str = "LSODA"
    min_step: float = 0.0
    max_step: float = float("inf")


Options = TypeVar("Options", AdaptiveOptions, GridOptions, SciPyOptions)


def read_options(kind: type[Options], given: dict[str, Any], method: str, ignored: Collection[str] = ()) -> Options:
    """Return the options as a value; warn, as torchdiffeq does, of those that the method does not have.

    Args:
        kind: What to read.
        given: The user's dictionary.
        method: Name of the method.
        ignored: Further names about which nothing is said.
    """
    names = {field.name for field in fields(kind)}
    known = {name: value for name, value in given.items() if name in names}
    unknown = {name: value for name, value in given.items() if name not in names and name not in ignored}
    if unknown:
        warnings.warn(
            f"{method}: Unexpected arguments {unknown}. It has the options {', '.join(sorted({'norm', *names}))}.",
            stacklevel=4,
        )
    return kind(**known)
