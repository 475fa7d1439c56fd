"""The times a user gives: the ends of the interval and where to save."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ude.problems import ODEProblem


def read_span(problem: ODEProblem, y0: Tensor) -> tuple[Tensor, Tensor]:
    """Return start and end as real tensors of shape `(batch,)`, having checked them.

    Raises:
        ValueError: If one has the wrong shape or is not finite.
    """
    times = []
    for name, value in zip(("t0", "t1"), problem.t_span, strict=True):
        if isinstance(value, int | float):
            time, finite = torch.full((len(y0),), value, dtype=y0.real.dtype, device=y0.device), math.isfinite(value)
        else:
            time = torch.as_tensor(value, dtype=y0.real.dtype, device=y0.device)
            finite = bool(time.isfinite().all())
            if time.ndim > problem.batched or (time.ndim and len(time) != len(y0)):
                raise ValueError(
                    f"`{name}` in `t_span` must be a number{' or have shape (batch,)' if problem.batched else ''}, "
                    f"got shape {tuple(time.shape)}."
                )
            time = time.expand(len(y0)).clone(memory_format=torch.contiguous_format)
        if not finite:
            raise ValueError(f"`{name}` in `t_span` must be finite, got {value}.")
        times.append(time)
    return times[0], times[1]


def read_save_at(
    save_at: Tensor | Sequence[float] | None, t0: Tensor, t1: Tensor, *, batched: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the times to save at in the user's shape, and as `(times, batch)`, having checked them.

    Raises:
        ValueError: If they have the wrong shape, lie outside the interval, or turn back.
    """
    if save_at is None:
        return None, None
    given = torch.as_tensor(save_at, dtype=t0.dtype, device=t0.device)
    if not 1 <= given.ndim <= 1 + batched or (given.ndim == 2 and given.shape[1] != len(t0)) or len(given) == 0:
        wanted = "(times,) or (times, batch)" if batched else "(times,)"
        raise ValueError(f"`save_at` must have shape {wanted} with at least one time, got {tuple(given.shape)}.")
    ts = given if given.ndim == 2 else given.unsqueeze(-1)
    start, end = t0.detach(), t1.detach()
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    if given.ndim == 1:
        # Shared times are checked once, against the part of the interval that all samples share.
        shared_low, shared_high = low.max(), high.min()
        inside = bool(((ts >= shared_low) & (ts <= shared_high)).all())
    else:
        inside = False
    if not inside:
        ts = _clamp(ts, low, high, start, end)
    if len(ts) > 1:
        _check_direction(ts, start, end)
    return given, ts.expand(-1, len(t0))


def first_outside(ts: Tensor, low: Tensor, high: Tensor) -> tuple[int, int] | None:
    """Return row and sample of the first time that lies outside by more than rounding, None if all lie inside."""
    slack = 8 * torch.finfo(ts.dtype).eps * torch.maximum(low.abs(), high.abs())
    outside = ~((ts >= low - slack) & (ts <= high + slack))
    if not bool(outside.any()):
        return None
    row, sample = outside.nonzero()[0].tolist()
    return row, sample


def _clamp(ts: Tensor, low: Tensor, high: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Move times that rounding has put just outside to the end; raise for others."""
    place = first_outside(ts, low, high)
    if place is not None:
        row, sample = place
        raise ValueError(
            f"`save_at` must lie in [t0, t1] = [{start[sample]:.6g}, {end[sample]:.6g}], got "
            f"{ts.expand(-1, len(start))[row, sample]:.6g}. Extend `t_span` or drop these times."
        )
    return ts + (ts.clamp(low, high) - ts).detach()


def _check_direction(ts: Tensor, start: Tensor, end: Tensor) -> None:
    """Raise if times run against the direction of their sample."""
    forward = torch.where(end < start, -1.0, 1.0)
    if not bool((ts.diff(dim=0) * forward >= 0).all()):
        raise ValueError(
            "`save_at` must run from t0 to t1 without turning back: sort it, in decreasing order if t1 < t0."
        )
