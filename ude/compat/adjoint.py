"""`odeint_adjoint` with torchdiffeq's signature: the gradient by a second solve, backwards in time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ude import ad
from ude.compat.call import Call, EventFunction, Field, State, Tolerance
from ude.compat.callbacks import NAMES
from ude.compat.door import integrate, integrate_until, odeint
from ude.compat.errors import ArgumentError
from ude.compat.norms import mixed_norm, root_mean_square
from ude.compat.regularized import Info, Regularized, check_constant_states, refuse_event
from ude.methods import ExplicitRungeKutta, Method
from ude.regularize.regularizer import Regularizer


def odeint_adjoint(
    func: Field,
    y0: State,
    t: Tensor,
    *,
    rtol: Tolerance = 1e-7,
    atol: Tolerance = 1e-9,
    method: str | Method | None = None,
    options: dict[str, Any] | None = None,
    event_fn: EventFunction | None = None,
    adjoint_rtol: Tolerance | None = None,
    adjoint_atol: Tolerance | None = None,
    adjoint_method: str | Method | None = None,
    adjoint_options: dict[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
    regularizer: Regularizer | None = None,
) -> Any:
    r"""Solve as `odeint` does, in memory that does not grow with the number of steps.

    The backward pass solves for the state, its adjoint $a$ and the gradients of times and parameters,

    $$ \dot y = f, \qquad \dot a = -a^T \frac{\partial f}{\partial y}, \qquad
       \dot g_t = -a^T \frac{\partial f}{\partial t}, \qquad \dot g_\theta = -a^T \frac{\partial f}{\partial \theta}, $$

    from the last time to the first; at each of `t` the state is set to that of the forward pass and the cotangent of
    the output is added to $a$. The gradient is as accurate as the tolerances of that solve, unlike that of `odeint`,
    which is exact for the steps made. Once differentiable.

    Args:
        func: Vector field, as in `odeint`; a `torch.nn.Module`, or give `adjoint_params`.
        y0: State at `t[0]`: a tensor or a tuple of tensors.
        t: Strictly increasing or decreasing times, shape `(times,)`.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        method: Name of the method, `"dopri5"` by default, or a method of this library.
        options: Options of the method.
        event_fn: Ends the solve, as in `odeint`.
        adjoint_rtol: Relative tolerance of the backward solve, by default `rtol`. One per tensor must count
            `(g_t, *y, *a, *g_theta)`.
        adjoint_atol: Absolute tolerance of the backward solve, by default `atol`, likewise.
        adjoint_method: Method of the backward solve, by default `method`.
        adjoint_options: Its options, by default `options` without `norm`. `norm` is a function of the tuple
            `(g_t, *y, *a, *g_theta)`, or `"seminorm"`, which leaves the parameters out.
        adjoint_params: Tensors that get a gradient, by default the parameters of `func`.
        regularizer: A cost of the trajectory, as in `odeint`. Steps carry no gradient here: of the costs of steps take
            `Local(...)`, of integrals those with `nodes="saved"`, `nodes="state"` or `detach=True`.

    Returns:
        States in the form of `y0`, with a leading axis of times; with `event_fn` after the time of the event, with
        `regularizer` before an `Info`.

    Raises:
        ArgumentError: If an argument cannot be used; a `ValueError` and an `AssertionError`.
        OdeintError: If a solve fails, here or in the backward pass.

    Reference:
        Chen, Rubanova, Bettencourt & Duvenaud (2018), Neural ordinary differential equations, NeurIPS.
        Kidger, Chen & Lyons (2021), "Hey, that's not an ODE": faster ODE adjoints via seminorms, ICML.
    """
    if adjoint_method not in (None, method) and options is not None and adjoint_options is None:
        raise ArgumentError(
            "If `adjoint_method != method` then we cannot infer `adjoint_options` from `options`. So as `options` has "
            "been passed then `adjoint_options` must be passed as well."
        )
    backward_method = method if adjoint_method is None else adjoint_method
    if not isinstance(backward_method, str | ExplicitRungeKutta | None):
        raise ArgumentError(
            f"{backward_method} differentiates what it solves, which the backward solve does already. Use `odeint`, "
            "whose gradient goes through the steps, or name an `adjoint_method`."
        )
    params = _parameters(func, adjoint_params, adjoint_options)
    task = None
    if regularizer is None:
        call = Call.read(func, y0, t, rtol, atol, method, options, until_event=event_fn is not None)
    else:
        refuse_event(event_fn)
        task = Regularized.read(regularizer, func, y0, t, rtol, atol, method, options)
        call = task.call
    inherited = {name: value for name, value in (options or {}).items() if name not in ("norm", "engine")}
    chosen = dict(inherited if adjoint_options is None else adjoint_options)
    backward = _Backward(
        dynamics=_dynamics(call, params, call.func),
        field=call.field,
        params=params,
        moving=call.t.requires_grad,
        rtol=_tolerance(adjoint_rtol, call.rtol, call, params),
        atol=_tolerance(adjoint_atol, call.atol, call, params),
        method=backward_method,
        options={**chosen, "norm": _norm(chosen.get("norm"), call)},
    )
    if task is not None:
        return _regularized(task, backward)
    event = None if event_fn is None else call.event(event_fn)
    with torch.no_grad():
        time, ys = (None, integrate(call)) if event is None else integrate_until(call, event)
        times = call.t.detach() if time is None else torch.stack([call.t[0], time])
    ys = ad.attach(ys, [call.y0, call.t, *params], lambda cotangent: backward.pull(times, ys.detach(), cotangent))
    return call.unpack(ys) if time is None else (time, call.unpack(ys))


def _regularized(task: Regularized, backward: _Backward) -> tuple[Any, Info]:
    """Return the states of a call, and what there is to say of its solve."""
    call, params = task.call, backward.params
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in (call.y0, call.t, *params))
    dense = check_constant_states(task.cost, recorded=recorded)
    with torch.no_grad():
        solution = task.solve(dense=dense)
    ys = ad.attach(
        solution.ys,
        [call.y0, call.t, *params],
        lambda cotangent: backward.pull(call.t.detach(), solution.ys.detach(), cotangent),
    )
    return task.result(solution, ys)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Backward:
    """The solve of the backward pass.

    Args:
        dynamics: Derivative of `(g_t, y, a, *g_theta)`.
        field: Vector field on the packed state.
        params: Tensors that get a gradient.
        moving: So do the times.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        method: Name of the method.
        options: Its options.
    """

    dynamics: Field
    field: Callable[[Tensor, Tensor], Tensor]
    params: tuple[Tensor, ...]
    moving: bool
    rtol: Tolerance
    atol: Tolerance
    method: str | Method | None
    options: dict[str, Any]

    def pull(self, t: Tensor, ys: Tensor, cotangent: Tensor) -> list[Tensor]:
        """Return the gradients of the initial state, the times and the parameters."""
        rates = torch.zeros_like(t)
        state = (ys.real.new_zeros(()), ys[-1], cotangent[-1], *map(torch.zeros_like, self.params))
        for i in range(len(t) - 1, 0, -1):
            if self.moving:
                slope = self.field(t[i].to(ys.real.dtype), ys[i])
                rates[i] = (cotangent[i].conj() * slope).sum().real
                state = (state[0] - rates[i], *state[1:])
            solved = odeint(
                self.dynamics,
                state,
                t[i - 1 : i + 1].flip(0),
                rtol=self.rtol,
                atol=self.atol,
                method=self.method,
                options=self.options,
            )
            rate, _, adjoint, *gradients = (part[1] for part in solved)
            state = (rate, ys[i - 1], adjoint.to(ys.dtype) + cotangent[i - 1], *gradients)
        rates[0] = state[0].real
        gradients = [_like(x, param) for x, param in zip(state[3:], self.params, strict=True)]
        return [state[2], rates, *gradients]


def _like(gradient: Tensor, param: Tensor) -> Tensor:
    """Return a gradient, which a mixture of dtypes may have widened, in the dtype of its parameter."""
    return (gradient if param.is_complex() else gradient.real).to(param.dtype)


def _dynamics(call: Call, params: Sequence[Tensor], owner: object) -> Field:
    """Return the derivative of `(g_t, y, a, *g_theta)`, with the callbacks that the user gave for it."""

    def dynamics(t: Tensor, augmented: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            time = t.detach().to(call.y0.real.dtype).requires_grad_(True)
            y = augmented[1].detach().to(call.y0.dtype).requires_grad_(True)
            # Where nobody asks for the gradient of times, a field that is not differentiable in time will do.
            derivative = call.field(time if call.t.requires_grad else time.detach(), y)
            inputs = [time, y, *params]
            if not derivative.requires_grad:
                rate, *gradients = map(torch.zeros_like, inputs)
            else:
                # The user's graph may reach beyond one evaluation: it is kept for the next one.
                rate, *gradients = ad.grad(derivative, inputs, -augmented[2].to(y.dtype), retain_graph=True)
        return (rate, derivative.detach(), *gradients)

    for name in NAMES:
        callback = getattr(owner, f"{name}_adjoint", None)
        if callback is not None:
            setattr(dynamics, name, callback)
    return dynamics


def _parameters(func: Field, given: Iterable[Tensor] | None, options: dict[str, Any] | None) -> tuple[Tensor, ...]:
    """Return the tensors that get a gradient."""
    if given is None and not isinstance(func, nn.Module):
        raise ArgumentError(
            "func must be an instance of nn.Module to specify the adjoint parameters; alternatively they can be "
            "specified explicitly via the `adjoint_params` argument. If there are no parameters then it is allowable "
            "to set `adjoint_params=()`."
        )
    everything = tuple(_module_parameters(func) if isinstance(func, nn.Module) and given is None else given or ())
    wanted = tuple(param for param in everything if param.requires_grad)
    if len(wanted) != len(everything) and callable((options or {}).get("norm")):
        warnings.warn(
            "An adjoint parameter was passed without requiring gradient. For efficiency this will be excluded from the "
            "adjoint pass, and will not appear as a tensor in the adjoint norm.",
            stacklevel=3,
        )
    return wanted


def _module_parameters(module: nn.Module) -> list[Tensor]:
    if not getattr(module, "_is_replica", False):
        return list(module.parameters())
    # In a replica made by DataParallel parameters are plain attributes.
    attributes = (value for part in module.modules() for value in vars(part).values())
    return [value for value in attributes if isinstance(value, Tensor) and value.requires_grad]


def _tolerance(given: Tolerance | None, forward: float | Tensor, call: Call, params: Sequence[Tensor]) -> Tolerance:
    """Return the tolerance of the backward solve; one per component holds for the state and its adjoint."""
    if given is not None:
        return given
    if not isinstance(forward, Tensor) or forward.ndim == 0:
        return forward
    each, least = forward.expand(call.y0.shape).flatten(), forward.min()
    return (least, each, each, *[least] * len(params))


def _norm(given: Any, call: Call) -> Callable[[tuple[Tensor, ...]], Any]:
    """Return the norm of `(g_t, y, a, *g_theta)`."""
    state_norm = root_mean_square if call.norm is None else call.norm
    if callable(given):
        packing = call.packing
        if packing is None:
            return given
        return lambda parts: given((parts[0], *packing.unpack(parts[1]), *packing.unpack(parts[2]), *parts[3:]))
    if given not in (None, "seminorm"):
        raise ArgumentError(f"adjoint_options['norm'] must be a function or 'seminorm', got {given!r}.")

    def norm(parts: tuple[Tensor, ...]) -> Tensor:
        sizes = [parts[0].abs(), *(torch.as_tensor(state_norm(part)) for part in parts[1:3])]
        if given is None and parts[3:]:
            sizes.append(mixed_norm(parts[3:]))
        return torch.stack([size.to(sizes[0]) for size in sizes]).amax()

    return norm
