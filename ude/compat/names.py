"""What torchdiffeq's names of methods stand for."""

from __future__ import annotations

from ude.compat.errors import ArgumentError
from ude.methods import Method
from ude.methods.torchdiffeq_names import ADAMS, ADAPTIVE, FIXED, NAMES, SCIPY


def read_method(method: str | Method) -> tuple[str, Method | None]:
    """Return the name of a method, and the method itself if it controls its steps.

    Args:
        method: A name, or a method of this library.
    """
    if not isinstance(method, str) and isinstance(method, Method):
        if method.error_order is None:
            raise ArgumentError(f"{method} has no error estimate to control its steps. Name one of {', '.join(FIXED)}.")
        return str(method), method
    if method not in NAMES:
        raise ArgumentError(f'Invalid method "{method}". Must be one of {", ".join(NAMES)}, or a method object.')
    return method, ADAPTIVE.get(method)


def supported_callbacks(method: str) -> tuple[str, ...]:
    """Return the callbacks that a method calls."""
    if method == SCIPY:
        return ()
    if method in FIXED or method in ADAMS:
        return ("callback_step",)
    return ("callback_step", "callback_accept_step", "callback_reject_step")
