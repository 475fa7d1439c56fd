"""What `SINDy` is given, brought into one form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ude.discovery.differentiation import Differentiation


@dataclass(frozen=True, slots=True)
class Measurements:
    """Trajectories as float64 tensors, one entry each.

    Args:
        x: States, each of shape `(times, states)`.
        t: Times, each of shape `(times,)`.
        x_dot: Time derivatives, if known.
        u: Exogenous inputs, each of shape `(times, inputs)`, if any.
    """

    x: list[Tensor]
    t: list[Tensor]
    x_dot: list[Tensor] | None
    u: list[Tensor] | None

    def differentiated(self, method: Differentiation) -> Measurements:
        """Add time derivatives (and smooth the states) where they are not known."""
        if self.x_dot is not None:
            return self
        pairs = [method(x, t) for x, t in zip(self.x, self.t, strict=True)]
        return replace(self, x=[x for x, _ in pairs], x_dot=[x_dot for _, x_dot in pairs])

    def columns(self) -> list[Tensor]:
        """States and inputs side by side."""
        return self.x if self.u is None else [torch.cat(pair, dim=-1) for pair in zip(self.x, self.u, strict=True)]

    def samples(self) -> tuple[Tensor, Tensor]:
        """All trajectories one below the other: columns and time derivatives, rows with a missing value left out."""
        columns, slopes = torch.cat(self.columns()), torch.cat(self.x_dot or [])
        is_known = columns.isfinite().all(-1) & slopes.isfinite().all(-1)
        if not bool(is_known.any()):
            raise ValueError("Every sample has a missing value (NaN) in a state, an input or a time derivative.")
        return columns[is_known], slopes[is_known]


def trajectories(x: Any, t: Any, x_dot: Any, u: Any) -> Measurements:
    """Bring arrays, tensors or lists of them into one form, and check that they belong together.

    Raises:
        ValueError: If lengths differ or times do not increase.
    """
    many = isinstance(x, Sequence)
    xs = _tables("x", x, many)
    ts = list(t) if isinstance(t, Sequence) and many else [t] * len(xs)
    if len(ts) != len(xs):
        raise ValueError(f"`t` must hold one entry per trajectory ({len(xs)}), got {len(ts)}.")
    times = [_times(value, len(table)) for value, table in zip(ts, xs, strict=True)]
    found = Measurements(
        xs,
        times,
        None if x_dot is None else _tables("x_dot", x_dot, many),
        None if u is None else _tables("u", u, many),
    )
    for name, tables in (("x_dot", found.x_dot), ("u", found.u)):
        lengths, expected = [len(table) for table in tables or []], [len(table) for table in xs]
        if tables is not None and lengths != expected:
            raise ValueError(f"`{name}` must have as many rows per trajectory as `x`, {expected}, got {lengths}.")
    return found


def like(values: list[Tensor], model: Any) -> Any:
    """Return results as what `model` is: a tensor, an array, or a list of either."""
    if isinstance(model, Sequence):
        return [like([value], one) for value, one in zip(values, model, strict=True)]
    return values[0].to(model) if isinstance(model, Tensor) else values[0].numpy()


def _tables(name: str, value: Any, many: bool) -> list[Tensor]:
    if isinstance(value, Sequence) != many:
        raise ValueError(f"`{name}` must be a list of trajectories if and only if `x` is one.")
    tables = [_tensor(one) for one in (value if many else [value])]
    tables = [table.unsqueeze(-1) if table.ndim == 1 else table for table in tables]
    if not tables or any(table.ndim != 2 for table in tables) or len({table.shape[-1] for table in tables}) > 1:
        raise ValueError(
            f"`{name}` must have shape (times, columns), the same columns for every trajectory, got "
            f"{[tuple(table.shape) for table in tables]}."
        )
    return tables


def _times(t: Any, length: int) -> Tensor:
    times = _tensor(t)
    if times.ndim == 0:
        times = times * torch.arange(length, dtype=times.dtype, device=times.device)
    if times.shape != (length,) or not bool((times.diff() > 0).all()):
        raise ValueError(
            f"`t` must be a positive time step or {length} increasing times, got shape {tuple(times.shape)}. "
            "Sort the rows by time and drop repeated ones."
        )
    return times


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().double()
    return torch.from_numpy(np.array(value, dtype=float))
