"""The one table of rules: what each torch function does to jets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

Handler: TypeAlias = Callable[..., Any]
"""Called with the arguments of the torch function, jets among them; returns jets."""

_TABLE: dict[Callable[..., Any], Handler] = {}

_ATEN: dict[str, Handler] = {}

_C: Any = torch._C

_NAMESPACES = (
    torch,
    Tensor,
    torch._VF,
    _C._nn,
    torch.nn.functional,
    torch.special,
    torch.linalg,
    torch.fft,
    _C._linalg,
    _C._fft,
    _C._special,
)


def register(function: Callable[..., Any], handler: Handler) -> None:
    """Say what a torch function does to jets; a later registration replaces an earlier one.

    Args:
        function: A function that dispatches on `__torch_function__`: of torch, `torch.nn.functional`,
            `torch.special`, a method such as `torch.Tensor.sin`, or one that calls
            `torch.overrides.handle_torch_function` itself.
        handler: Made by `elementwise`, `linear` or `bilinear`, or a function with the same arguments that is written in
            terms of torch functions with a rule.

    Raises:
        TypeError: If either is not callable.

    Example:
        The function y = sqrt(1 + u^2) of another library becomes one that jets pass through. Its derivative is u / y.

        >>> from torch.overrides import handle_torch_function, has_torch_function
        >>> def arch(x):
        ...     if has_torch_function((x,)):
        ...         return handle_torch_function(arch, (x,), x)
        ...     return torch.hypot(x, torch.ones_like(x))
        >>> def rule(u):
        ...     y = Series(lambda k: torch.hypot(u[0], torch.ones_like(u[0])) if k == 0 else slope_times_du[k])
        ...     v = u / y
        ...     slope_times_du = integrate(u[0], u, v)
        ...     return y, v
        >>> from ude import ad
        >>> from ude.ad.series import Series, integrate
        >>> ad.register(arch, ad.elementwise(rule))
        >>> x = torch.tensor(0.0)
        >>> ad.jet(arch, (x, x + 1.0, x, x, x))
        (tensor(1.), tensor(0.), tensor(0.5000), tensor(0.), tensor(-0.1250))

        Functions that are coupled give each other their slopes: the rules of the Bessel functions in
        `ude.ad.rules.special` are series of this kind, with $J_0' = -J_1$ and $J_1' = J_0 - J_1 / u$.

        >>> one = torch.tensor(1.0, dtype=torch.float64)
        >>> ad.jet(torch.special.bessel_j0, (one, one, 0 * one))  # J0(1), -J1(1), J0''(1) / 2
        (tensor(0.7652, ...), tensor(-0.4401, ...), tensor(-0.1626, ...))
    """
    for what, given in (("function", function), ("handler", handler)):
        if not callable(given):
            raise TypeError(f"Expected a callable {what}, got {given!r}.")
    _TABLE[function] = handler


def lookup(function: Callable[..., Any]) -> Handler | None:
    """Return the rule of a torch function, None if there is none."""
    return _TABLE.get(function)


def register_aten(name: str, handler: Handler) -> None:
    """Say what an ATen operation does that has other arguments than the torch function of its name, or none."""
    _ATEN[name] = handler


def aten_rule(name: str) -> Handler | None:
    """Return the rule of an ATen operation: its own, or that of the torch function of the same name."""
    if name in _ATEN:
        return _ATEN[name]
    for space in (torch, _C._nn, Tensor, _C._special, _C._linalg, _C._fft):
        rule = _TABLE.get(getattr(space, name, None))  # pyright: ignore[reportArgumentType]
        if rule is not None:
            return rule
    return None


def registered() -> Iterator[str]:
    """Yield the names of all functions with a rule, in alphabetical order."""
    yield from sorted({name_of(function) for function in _TABLE})


def name_of(function: Callable[..., Any]) -> str:
    """Return the name under which a user knows a torch function."""
    return getattr(function, "__name__", str(function)).removeprefix("special_").removeprefix("linalg_")


def register_names(handler: Handler, *names: str) -> None:
    """Register a handler for everything of these names in torch's namespaces."""
    for name in names:
        for function in functions_named(name):
            register(function, handler)


def functions_named(name: str) -> set[Callable[..., Any]]:
    """Return everything of this name in torch's namespaces; nothing if this version of torch lacks it."""
    found = (getattr(space, name, None) for space in _NAMESPACES)
    return {function for function in found if callable(function) and not isinstance(function, type)}
