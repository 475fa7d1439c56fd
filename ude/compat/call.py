"""What a call asks for, checked and brought into one form."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ude.ad import is_tensor
from ude.compat.callbacks import Callbacks
from ude.compat.errors import ArgumentError
from ude.compat.names import read_method, supported_callbacks
from ude.compat.norms import mixed_norm
from ude.compat.packing import PackedNorm, Packing
from ude.compat.wrapped import Norm
from ude.methods import Method

State: TypeAlias = Tensor | tuple[Tensor, ...]
Field: TypeAlias = Callable[[Tensor, Any], Any]
"""`func(t, y)`: returns the derivative in the form of `y`."""
EventFunction: TypeAlias = Callable[[Tensor, Any], Tensor]
"""`event_fn(t, y)`: one or several numbers."""
Event: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""An event on the packed state: one number, positive at the start of the solve."""
Tolerance: TypeAlias = Any
"""A number, a tensor that broadcasts to the state, or for a tuple state one such per tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of `odeint`, with a tuple state packed into one vector.

    Args:
        func: The user's vector field.
        field: The same on the packed state.
        y0: Initial state.
        t: Times, strictly monotone; shape `(times,)`.
        rtol: Relative tolerance: a number, or a tensor that broadcasts to `y0`.
        atol: Absolute tolerance, likewise.
        method: Name of the method.
        stepper: The method itself, if it controls its steps.
        options: The user's options, without the norm.
        norm: The user's norm, or that of tuples, on the packed state; None for the root mean square.
        packing: Between the packed state and the tuple; None if the state is a tensor.
        callbacks: What the method is to call.
    """

    func: Field
    field: Callable[[Tensor, Tensor], Tensor]
    y0: Tensor
    t: Tensor
    rtol: float | Tensor
    atol: float | Tensor
    method: str
    stepper: Method | None
    options: dict[str, Any]
    norm: Norm | None
    packing: Packing | None
    callbacks: Callbacks

    @classmethod
    def read(
        cls,
        func: Field,
        y0: State,
        t: Tensor,
        rtol: Tolerance,
        atol: Tolerance,
        method: str | Method | None,
        options: dict[str, Any] | None,
        *,
        until_event: bool = False,
    ) -> Call:
        """Check the arguments of a call and pack its state.

        Raises:
            ArgumentError: If an argument cannot be used; a `ValueError` and an `AssertionError`.
            TypeError: If `t` holds integers.
        """
        if until_event and len(t) != 2:
            raise ArgumentError(
                f"We require len(t) == 2 when in event handling mode, but got len(t)={len(t)}. The second time only "
                "gives the direction."
            )
        packing = _packing(y0)
        name, stepper = read_method("dopri5" if method is None else method)
        check_times(t)
        packed = packing.pack(tuple(y0)) if packing else torch.as_tensor(y0)
        if t.device != packed.device:
            warnings.warn("t is not on the same device as y0. Coercing to y0.device.", stacklevel=3)
            t = t.to(packed.device)
        chosen = dict(options or {})
        norm = chosen.pop("norm", mixed_norm if packing else None)
        return cls(
            func=func,
            field=bind(func, packing),
            y0=packed,
            t=t,
            rtol=_tolerance("rtol", rtol, packing, packed.device),
            atol=_tolerance("atol", atol, packing, packed.device),
            method=name,
            stepper=stepper,
            options=chosen,
            norm=norm if packing is None else PackedNorm(norm, packing),
            packing=packing,
            callbacks=Callbacks.of(func, name, supported_callbacks(name), packed.shape, packing),
        )

    def unpack(self, y: Tensor) -> Any:
        """Return packed states in the form of the user's."""
        return self.packing.unpack(y) if self.packing else y

    def event(self, event_fn: EventFunction) -> Event:
        """Return a function that is zero where the first of the numbers of `event_fn` changes its sign."""
        with torch.no_grad():
            signs = event_fn(self.t[0].to(self.y0.real), self.unpack(self.y0)).sign()

        def event(t: Tensor, y: Tensor) -> Tensor:
            return (event_fn(t, self.unpack(y)) * signs).min()

        return event


def _packing(y0: State) -> Packing | None:
    if isinstance(y0, Tensor):
        return None
    if not (isinstance(y0, tuple) and y0 and all(isinstance(part, Tensor) for part in y0)):
        raise ArgumentError(
            f"y0 must be either a torch.Tensor or a tuple of tensors, got {type(y0).__name__}. "
            "Convert numbers with `torch.tensor`, a list with `tuple`."
        )
    return Packing(tuple(part.shape for part in y0))


def check_times(t: Tensor) -> None:
    """Raise unless times are a vector of floating-point numbers that rise or fall."""
    if not isinstance(t, Tensor):
        raise ArgumentError(f"t must be a torch.Tensor, got {type(t).__name__}. Write `torch.tensor([t0, t1])`.")
    if not t.is_floating_point():
        raise TypeError(f"`t` must be a floating point Tensor but is a {t.type()}. Convert it with `t.double()`.")
    if t.ndim != 1 or not len(t):
        raise ArgumentError(f"t must be one dimensional with at least one time, got shape {tuple(t.shape)}.")
    step = t.detach().diff()
    if not bool((step > 0).all() | (step < 0).all()):
        raise ArgumentError("t must be strictly increasing or decreasing. Sort it and drop repeated times.")


def _tolerance(name: str, given: Tolerance, packing: Packing | None, device: torch.device) -> float | Tensor:
    """Return a tolerance as a number or as a tensor that broadcasts to the packed state."""
    if isinstance(given, int | float):
        return given
    if isinstance(given, Tensor) and given.requires_grad:
        raise ArgumentError(f"{name} cannot require gradient. Use `{name}.detach()`.")
    if packing is None or (isinstance(given, Tensor) and given.ndim == 0):
        return torch.as_tensor(given, device=device)
    parts = tuple(given)
    if len(parts) != len(packing.shapes):
        raise ArgumentError(
            f"If using tupled {name} it must have the same length as the tuple y0, {len(packing.shapes)}, "
            f"got {len(parts)}."
        )
    rows = [torch.as_tensor(x, device=device) for x in parts]
    return torch.cat([row.expand(shape.numel()) for row, shape in zip(rows, packing.shapes, strict=True)])


def bind(func: Field, packing: Packing | None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the vector field on the packed state, its derivative in the form of the state."""

    def field(t: Tensor, y: Tensor) -> Tensor:
        if packing is not None:
            return _packed(func(t, packing.unpack(y)), packing, y)
        return _single(func(t, y), y)

    return field


def in_form(func: Field) -> Field:
    """Return the vector field with its time in the precision of the state, its derivative in the form of the state."""

    def field(t: Tensor, y: Any) -> Any:
        parts = [y] if is_tensor(y) else list(y)
        derivative = func(t.to(parts[0].dtype.to_real()), y)
        if is_tensor(y):
            return _single(derivative, y)
        return tuple(_like(part.reshape(x.shape), x) for part, x in zip(derivative, parts, strict=True))

    return field


def _single(derivative: Any, y: Tensor) -> Tensor:
    """Return the derivative of a state that is one tensor."""
    if not is_tensor(derivative):
        raise ArgumentError(f"func must return a tensor for a tensor state, got {type(derivative).__name__}.")
    if derivative.shape == y.shape and derivative.dtype == y.dtype:
        return derivative
    return _like(derivative, y)


def _packed(derivatives: Any, packing: Packing, y: Tensor) -> Tensor:
    """Return the derivatives of a tuple state as one vector."""
    expected = [tuple(shape) for shape in packing.shapes]
    if not all(map(is_tensor, derivatives)) or sum(part.numel() for part in derivatives) != y.numel():
        got = [tuple(part.shape) if is_tensor(part) else type(part).__name__ for part in derivatives]
        raise ArgumentError(f"func must return tensors of the shapes of the tuple state, {expected}, got {got}.")
    return packing.pack(derivatives).to(y.dtype)


def _like(derivative: Tensor, y: Tensor) -> Tensor:
    """Return a derivative of another shape or dtype as broadcasting would have it."""
    while derivative.ndim > y.ndim and derivative.shape[0] == 1:
        derivative = derivative[0]
    try:
        return derivative.expand(y.shape).to(y.dtype)
    except RuntimeError as error:
        raise ArgumentError(
            f"func must return a derivative that broadcasts to the state, {tuple(y.shape)}, got "
            f"{tuple(derivative.shape)}."
        ) from error
