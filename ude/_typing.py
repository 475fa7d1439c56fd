"""Names for the kinds of value that cross room borders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

State: TypeAlias = Any
"""A tensor of any shape, or a nested tuple, list or dict of tensors of one dtype and device."""

VectorField: TypeAlias = Callable[..., State]
"""`f(t, y)` or `f(t, y, p)`; returns the time derivative of `y`, in the structure of `y`."""

FlatField: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""What methods see: `f(t, y)` with `t` of shape `(batch,)` and `y` of shape `(batch, state)`."""
