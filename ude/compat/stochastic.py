"""`sdeint` and `sdeint_adjoint` with torchsde's signatures."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ude.brownian import BrownianGrid, BrownianTree
from ude.compat.errors import ArgumentError
from ude.compat.stochastic_call import SDECall, StepOptions
from ude.compat.stochastic_names import BACKWARD
from ude.methods import StochasticMethod
from ude.solve import Checkpointed, Direct
from ude.solve.torchsde_backend import BoundBrownian, import_torchsde


def sdeint(
    sde: Any,
    y0: Tensor,
    ts: Tensor | Sequence[float],
    bm: Any = None,
    method: str | StochasticMethod | None = None,
    dt: float | Tensor = 1e-3,
    adaptive: bool = False,
    rtol: float | Tensor = 1e-5,
    atol: float | Tensor = 1e-4,
    dt_min: float | Tensor = 1e-5,
    options: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
    logqp: bool = False,
    extra: bool = False,
    extra_solver_state: Sequence[Tensor] | None = None,
    **unused: Any,
) -> Any:
    r"""Solve $dy = f(t, y)\, dt + g(t, y)\, dW$, $y(t_0) = y_0$, and return the states at all times `ts`.

    Every row of the batch has Brownian motions of its own. Steps end at each of `ts`; the gradient is that of the steps
    along the path.

    Args:
        sde: Object with `noise_type`, `"diagonal"`, `"additive"`, `"scalar"` or `"general"`, `sde_type`, `"ito"` or
            `"stratonovich"`, a drift `f(t, y)` of shape `(batch, state)` and a diffusion `g(t, y)` of shape
            `(batch, state)` for diagonal noise, else `(batch, state, noise)`; or with `f_and_g`, `g_prod`,
            `f_and_g_prod` in their place. `t` is a tensor of shape `()`.
        y0: State at `ts[0]`, shape `(batch, state)`.
        ts: Strictly increasing times, shape `(times,)`.
        bm: Brownian motion: a `ude.BrownianTree`, a `ude.BrownianGrid`, or one of torchsde of shape `(batch, noise)`.
            By default a new one, seeded by torch's generator.
        method: `"euler"`, `"milstein"`, `"srk"`, `"midpoint"`, `"heun"`, `"euler_heun"`, `"reversible_heun"`,
            `"log_ode"`, or a method of this library such as `SOSRI()`. By default `"srk"`, `"euler"` for general noise,
            `"midpoint"` with integrals of Stratonovich.
        dt: Length of the steps, of the first one if `adaptive`.
        adaptive: Choose the steps by the tolerances, the same for all rows.
        rtol: Relative tolerance.
        atol: Absolute tolerance, in the unit of the state.
        dt_min: Least step; taken whatever its error.
        options: `{"grad_free": True}` for `"milstein"`: differences instead of derivatives of the diffusion.
        names: Names of methods of `sde` if they are others: a dictionary with the keys `drift`, `diffusion`,
            `prior_drift`, `diffusion_prod`, `drift_and_diffusion`, `drift_and_diffusion_prod`.
        logqp: Return $\int \frac12 |g^{-1}(f - h)|^2 dt$ between the times as well, with the drift of a prior `h`.
        extra: Return the solver's own state as well.
        extra_solver_state: Its value at the start, for `"reversible_heun"`.
        unused: Warned of.

    Returns:
        States, shape `(times, batch, state)`; with `logqp` the log-ratios behind them, shape `(times - 1, batch)`; with
        `extra` a tuple of tensors behind these. With constant steps a row whose numbers overflow is NaN from there on.

    Raises:
        ArgumentError: If an argument cannot be used; a `ValueError` and an `AssertionError`.
        SdeintError: If steps that are chosen come to no end; a `SolveError` and an `AssertionError`.
        ImportError: If torchsde has to make the steps and is not installed.

    Example:
        >>> import torch
        >>> class Growth:
        ...     noise_type, sde_type = "diagonal", "ito"
        ...
        ...     def f(self, t, y):
        ...         return 0.1 * y
        ...
        ...     def g(self, t, y):
        ...         return 0.2 * y
        >>> sdeint(Growth(), torch.ones(32, 3), torch.linspace(0.0, 1.0, 5), dt=0.05).shape
        torch.Size([5, 32, 3])
    """
    _warn_of("sdeint", unused)
    steps = StepOptions.read(dt, adaptive, rtol, atol, dt_min)
    call = SDECall.read(sde, y0, ts, bm, method, steps, options, names, logqp=logqp)
    if _is_foreign(call, method, extra=extra, state=extra_solver_state):
        return import_torchsde().sdeint(
            sde,
            y0,
            ts,
            bm=_for_torchsde(call),
            method=method,
            dt=dt,
            adaptive=adaptive,
            rtol=rtol,
            atol=atol,
            dt_min=dt_min,
            options=options,
            names=names,
            logqp=logqp,
            extra=extra,
            extra_solver_state=extra_solver_state,
        )
    return _result(call.solve(Direct()), logqp=logqp, extra=extra)


def sdeint_adjoint(
    sde: Any,
    y0: Tensor,
    ts: Tensor | Sequence[float],
    bm: Any = None,
    method: str | StochasticMethod | None = None,
    adjoint_method: str | None = None,
    dt: float | Tensor = 1e-3,
    adaptive: bool = False,
    adjoint_adaptive: bool = False,
    rtol: float | Tensor = 1e-5,
    adjoint_rtol: float | Tensor = 1e-5,
    atol: float | Tensor = 1e-4,
    adjoint_atol: float | Tensor = 1e-4,
    dt_min: float | Tensor = 1e-5,
    options: Mapping[str, Any] | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
    names: Mapping[str, str] | None = None,
    logqp: bool = False,
    extra: bool = False,
    extra_solver_state: Sequence[Tensor] | None = None,
    **unused: Any,
) -> Any:
    r"""Solve as `sdeint` does, in memory that grows with the root of the number of steps.

    The gradient is that of `sdeint`, exact for the steps as they were made: the backward pass makes them again from
    states that were kept, one forward pass more. torchsde solves another equation backwards in time instead, whose
    errors enter the gradient. What steers that solve, the arguments that begin with `adjoint_`, has nothing to steer
    here and changes nothing, but where torchsde makes the steps; tensors get a gradient whether they are in
    `adjoint_params` or not.

    Args:
        sde: The equation, as in `sdeint`; need not be a `torch.nn.Module`.
        y0: State at `ts[0]`, shape `(batch, state)`.
        ts: Strictly increasing times, shape `(times,)`.
        bm: Brownian motion, as in `sdeint`.
        method: Method, as in `sdeint`.
        adjoint_method: Name of a method of torchsde.
        dt: Length of the steps, of the first one if `adaptive`.
        adaptive: Choose the steps by the tolerances.
        adjoint_adaptive: Without effect, as are all that follow of this kind.
        rtol: Relative tolerance.
        adjoint_rtol: Without effect.
        atol: Absolute tolerance.
        adjoint_atol: Without effect.
        dt_min: Least step.
        options: Options of the method, as in `sdeint`.
        adjoint_options: Without effect.
        adjoint_params: Without effect.
        names: Names of methods of `sde`, as in `sdeint`.
        logqp: Return the log-ratios as well.
        extra: Return the solver's own state as well.
        extra_solver_state: Its value at the start.
        unused: Warned of.

    Returns:
        What `sdeint` returns.

    Raises:
        ArgumentError: If an argument cannot be used; a `ValueError` and an `AssertionError`.
        SdeintError: If steps that are chosen come to no end.
        ImportError: If torchsde has to make the steps and is not installed.

    Reference:
        Li, Wong, Chen & Duvenaud (2020), Scalable gradients for stochastic differential equations, AISTATS: the
        equation that torchsde solves.
    """
    _warn_of("sdeint_adjoint", unused)
    if adjoint_method is not None and adjoint_method not in BACKWARD:
        raise ArgumentError(f"`adjoint_method` must be one of {', '.join(BACKWARD)}, got {adjoint_method!r}.")
    steps = StepOptions.read(dt, adaptive, rtol, atol, dt_min)
    call = SDECall.read(sde, y0, ts, bm, method, steps, options, names, logqp=logqp)
    if _is_foreign(call, method, extra=extra, state=extra_solver_state):
        return import_torchsde().sdeint_adjoint(
            sde,
            y0,
            ts,
            bm=_for_torchsde(call),
            method=method,
            adjoint_method=adjoint_method,
            dt=dt,
            adaptive=adaptive,
            adjoint_adaptive=adjoint_adaptive,
            rtol=rtol,
            adjoint_rtol=adjoint_rtol,
            atol=atol,
            adjoint_atol=adjoint_atol,
            dt_min=dt_min,
            options=options,
            adjoint_options=adjoint_options,
            adjoint_params=adjoint_params,
            names=names,
            logqp=logqp,
            extra=extra,
            extra_solver_state=extra_solver_state,
        )
    return _result(call.solve(Checkpointed()), logqp=logqp, extra=extra)


def _is_foreign(call: SDECall, method: Any, *, extra: bool, state: Sequence[Tensor] | None) -> bool:
    """Return whether torchsde has to make the steps: a method of its own, or one whose own state is asked for."""
    return call.method is None or (method == "reversible_heun" and (extra or state is not None))


def _for_torchsde(call: SDECall) -> Any:
    """Return the Brownian motion of a call as torchsde takes it."""
    if isinstance(call.bm, BrownianGrid):
        raise ArgumentError(
            "torchsde makes these steps, and they are not those of a `BrownianGrid`. Use a `BrownianTree`."
        )
    if not isinstance(call.bm, BrownianTree):
        return call.bm
    rows = call.y0.new_ones(len(call.y0))
    count = call.equation.check(call.ts[0], call.y0)
    bound = call.bm.bind(call.ts[0] * rows, call.ts[-1] * rows, count)
    return BoundBrownian(bound, (len(call.y0), count), call.y0)


def _result(ys: Tensor, *, logqp: bool, extra: bool) -> Any:
    """Return what a call gives back."""
    parts = (ys[..., :-1], ys[..., -1].diff(dim=0)) if logqp else (ys,)
    parts = (*parts, ()) if extra else parts
    return parts if len(parts) > 1 else ys


def _warn_of(name: str, unused: Mapping[str, Any]) -> None:
    if unused:
        warnings.warn(f"`{name}`: Unexpected arguments {dict(unused)}", stacklevel=3)
