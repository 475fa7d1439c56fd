"""Argument checks used at the doors: expected, got, what to do."""

from __future__ import annotations

from torch import Tensor


class UdeWarning(UserWarning):
    """A result that is valid but that its reader should know something about."""


class InputError(ValueError):
    """Something a user typed or a file a user gave cannot be used; the message says what to do."""


def positive(name: str, value: float) -> float:
    """Return `value` if it is a positive finite number, else raise `ValueError`."""
    if not (isinstance(value, int | float) and 0 < value < float("inf")):
        raise ValueError(f"`{name}` must be a positive finite number, got {value!r}.")
    return value


def floating(name: str, value: Tensor) -> Tensor:
    """Return `value` if it holds real or complex floating-point numbers, else raise `ValueError`."""
    if not (value.is_floating_point() or value.is_complex()):
        raise ValueError(
            f"`{name}` must hold floating-point or complex numbers, got {value.dtype}. "
            f"Convert it first, for example with `{name}.double()`."
        )
    return value
