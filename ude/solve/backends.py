"""Solvers of other libraries behind the same door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ude.solve.backend import BackendTask, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchDiffEqOptions:
    """Options of torchdiffeq's solvers, under its own names; see its documentation. None leaves its default.

    Args:
        step_size: Length of the steps of a fixed-step method.
        first_step: Length of the first step of an adaptive one.
        min_step: Least step; below it torchdiffeq accepts any error.
        max_step: Longest step.
        max_num_steps: Most steps.
        safety: Factor on the step the controller finds.
        ifactor: Most a step may grow.
        dfactor: Most it may shrink.
    """

    step_size: float | None = None
    first_step: float | None = None
    min_step: float | None = None
    max_step: float | None = None
    max_num_steps: int | None = None
    safety: float | None = None
    ifactor: float | None = None
    dfactor: float | None = None


@dataclass(frozen=True, slots=True)
class TorchDiffEq:
    """A method of torchdiffeq by its name there; the gradient is that of its `odeint`.

    The whole batch takes the same steps. There are no `Steps`, no continuous solution, and `Stats` counts only
    evaluations of the vector field.

    Args:
        name: `"dopri5"`, `"dopri8"`, `"rk4"`, `"implicit_adams"`, ...
        options: Options of the method.

    Example:
        >>> TorchDiffEq("rk4", TorchDiffEqOptions(step_size=0.1)).name
        'rk4'
    """

    name: str = "dopri5"
    options: TorchDiffEqOptions = TorchDiffEqOptions()

    def integrate(self, task: BackendTask) -> Result:
        """Call `torchdiffeq.odeint`."""
        from torchdiffeq import odeint

        def field(t: Tensor, y: Tensor) -> Tensor:
            # torchdiffeq keeps time in double precision where it can.
            return task.field(t.to(task.ts.dtype).expand(len(y)), y)

        given = {name: getattr(self.options, name) for name in self.options.__slots__}
        options = {name: value for name, value in given.items() if value is not None}
        try:
            ys = odeint(
                field,
                task.y0,
                task.ts,
                rtol=task.rtol,  # pyright: ignore[reportArgumentType]  # tensors are allowed, the annotation is narrow
                atol=task.atol,  # pyright: ignore[reportArgumentType]
                method=self.name,
                options=options or None,
            )
        except AssertionError as error:
            return Result(task.y0.unsqueeze(0), f"torchdiffeq: {error}")
        assert isinstance(ys, Tensor)
        return Result(ys, "")


@dataclass(frozen=True, slots=True)
class SciPy:
    """A method of `scipy.integrate.solve_ivp` by its name there, for stiff problems and as a reference.

    There is no gradient. A batch is solved as one large system. There are no `Steps`, no continuous solution, and
    `Stats` counts only evaluations of the vector field.

    Args:
        name: `"RK45"`, `"DOP853"`, `"Radau"`, `"BDF"` or `"LSODA"`.
        max_step: Longest step.
    """

    name: str = "LSODA"
    max_step: float = float("inf")

    def integrate(self, task: BackendTask) -> Result:
        """Call `scipy.integrate.solve_ivp`.

        Raises:
            ValueError: If a gradient is asked for.
        """
        import numpy as np
        from scipy.integrate import solve_ivp

        _refuse_gradient(task, self.name)
        shape, kind = task.y0.shape, task.y0.numpy(force=True).dtype
        precise = np.result_type(kind, np.float64)
        right_hand_side = _numpy_field(task, shape)
        ts = task.ts.detach().double().cpu().numpy()
        y0 = task.y0.numpy(force=True).astype(precise).ravel()
        rtol, atol = (x.double().cpu().expand(shape if x.ndim else ()).numpy().ravel() for x in (task.rtol, task.atol))
        solution = solve_ivp(
            right_hand_side,
            (ts[0], ts[-1]),
            y0,
            method=self.name,
            t_eval=ts,
            rtol=rtol if rtol.size > 1 else float(rtol[0]),
            atol=atol if atol.size > 1 else float(atol[0]),
            max_step=self.max_step,
        )
        ys = torch.from_numpy(solution.y.T.astype(kind)).to(task.y0.device).reshape(-1, *shape)
        return Result(ys, "" if solution.success else f"SciPy: {solution.message}")


def _numpy_field(task: BackendTask, shape: torch.Size) -> Callable[..., object]:
    """Return the vector field on flat arrays."""

    def right_hand_side(t: float, y: object) -> object:
        with torch.no_grad():
            state = torch.as_tensor(y).reshape(shape).to(task.y0)
            time = torch.as_tensor(t, dtype=task.ts.dtype, device=task.y0.device).expand(len(state))
            return task.field(time, state).cpu().numpy().ravel()

    return right_hand_side


def _refuse_gradient(task: BackendTask, name: str) -> None:
    """Raise if the result was to carry a gradient, which SciPy would drop without a word."""
    if torch.is_grad_enabled() and (
        task.y0.requires_grad
        or task.ts.requires_grad
        or task.field(task.ts[:1].expand(len(task.y0)), task.y0).requires_grad
    ):
        raise ValueError(
            f'`SciPy("{name}")` has no gradient, but the state, the times or the vector field require one. Solve under '
            "`torch.no_grad()`, or use a method of this library or `TorchDiffEq`."
        )
