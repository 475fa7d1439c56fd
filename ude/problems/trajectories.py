"""Measurements: what a model is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectories:
    """Measurements of one or several trajectories of the same system.

    A value that was not measured is NaN: missing entries, channels sampled at other times than the rest,
    and states that were never observed (a column of NaN). Shorter trajectories are padded at the end by
    repeating their last time, with NaN values.

    Args:
        ts: Times, non-decreasing along each row, shape `(groups, times)`.
        ys: Values, shape `(groups, times, states)`, NaN where not measured.
        states: Names of the states, in the order of the last axis of `ys`.
        inputs: Exogenous inputs at the same times, shape `(groups, times, inputs)`; never NaN.
        input_names: Names of the inputs.
        groups: Name of each trajectory.
        time: Name of the time variable.

    Raises:
        ValueError: If shapes, names or times do not fit together.
    """

    ts: Tensor
    ys: Tensor
    states: tuple[str, ...]
    inputs: Tensor | None = None
    input_names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ("1",)
    time: str = "t"

    def __post_init__(self) -> None:
        expected = (len(self.groups), self.ts.shape[-1], len(self.states))
        if self.ts.shape != expected[:2] or self.ys.shape != expected:
            raise ValueError(
                f"`ts` must have shape (groups, times) and `ys` (groups, times, states) = {expected} for "
                f"{len(self.groups)} group(s) and states {self.states}, got {tuple(self.ts.shape)} and "
                f"{tuple(self.ys.shape)}. `Trajectories.from_arrays` builds them from one array per trajectory."
            )
        if not bool((self.ts.diff(dim=1) >= 0).all()):
            raise ValueError("`ts` must not decrease along a trajectory. Sort the rows by time first.")
        shape = (*expected[:2], len(self.input_names))
        if (self.inputs is None) != (not self.input_names) or (self.inputs is not None and self.inputs.shape != shape):
            got = None if self.inputs is None else tuple(self.inputs.shape)
            raise ValueError(f"`inputs` must have shape {shape} for the inputs {self.input_names}, got {got}.")

    @classmethod
    def from_arrays(
        cls,
        ts: Tensor | Sequence[Tensor],
        ys: Tensor | Sequence[Tensor],
        *,
        states: Sequence[str] | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Trajectories:
        """Build from one time vector `(times,)` and one array `(times, states)` per trajectory.

        Args:
            ts: Times of one trajectory, or a sequence of them.
            ys: Values of one trajectory, or a sequence of them.
            states: Names of the states; `y1, y2, ...` by default.
            dtype: Floating-point type of the result.

        Example:
            >>> Trajectories.from_arrays(torch.arange(3.0), torch.zeros(3, 2), states=("x", "y")).ys.shape
            torch.Size([1, 3, 2])
        """
        rows_t = [torch.as_tensor(t, dtype=dtype) for t in ([ts] if isinstance(ts, Tensor) else ts)]
        rows_y = [torch.as_tensor(y, dtype=dtype) for y in ([ys] if isinstance(ys, Tensor) else ys)]
        if len(rows_t) != len(rows_y) or any(
            y.ndim != 2 or len(t) != len(y) for t, y in zip(rows_t, rows_y, strict=False)
        ):
            raise ValueError(
                "Expected one `ts` of shape (times,) and one `ys` of shape (times, states) per trajectory, got "
                f"{[tuple(t.shape) for t in rows_t]} and {[tuple(y.shape) for y in rows_y]}."
            )
        length, width = max(map(len, rows_t)), rows_y[0].shape[1]
        padded_t = torch.stack([torch.cat([t, t[-1:].expand(length - len(t))]) for t in rows_t])
        padded_y = torch.stack([torch.cat([y, y.new_full((length - len(y), width), torch.nan)]) for y in rows_y])
        return cls(
            ts=padded_t,
            ys=padded_y,
            states=tuple(states) if states is not None else tuple(f"y{i + 1}" for i in range(width)),
            groups=tuple(str(i + 1) for i in range(len(rows_t))),
        )
