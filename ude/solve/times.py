"""The times a user gives: the ends of the interval and where to save."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ude.problems import Problem

MANY = 1_000
"""Times beyond which operations on tensors check them faster than Python."""


@dataclass(frozen=True, slots=True)
class Span:
    """The interval of every sample.

    Args:
        t0: Start, shape `(batch,)`.
        t1: End, likewise.
        direction: 1 or -1, likewise.
        ends: Start and end as numbers, rounded as the tensors are; None where samples have ends of their own.
    """

    t0: Tensor
    t1: Tensor
    direction: Tensor
    ends: tuple[float, float] | None = None

    @property
    def moves(self) -> bool | Tensor:
        """Samples end elsewhere than where they start: one answer for all of them, or shape `(batch,)`."""
        if self.ends is not None:
            return self.ends[0] != self.ends[1]
        return self.t1.detach() != self.t0.detach()

    @property
    def carries_gradient(self) -> bool:
        """A start or an end is on the autograd graph."""
        return self.t0.requires_grad or self.t1.requires_grad

    def detach(self) -> Span:
        """Return the same interval without gradient."""
        return Span(self.t0.detach(), self.t1.detach(), self.direction, self.ends)


def read_span(problem: Problem, y0: Tensor) -> Span:
    """Return start and end as real tensors of shape `(batch,)`, having checked them.

    Raises:
        ValueError: If one has the wrong shape or is not finite.
    """
    times, dtype = [], y0.real.dtype
    for name, value in zip(("t0", "t1"), problem.t_span, strict=True):
        if isinstance(value, int | float):
            time, finite = torch.full((len(y0),), value, dtype=dtype, device=y0.device), math.isfinite(value)
        else:
            time = torch.as_tensor(value, dtype=dtype, device=y0.device)
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
    t0, t1 = times
    if all(isinstance(value, int | float) for value in problem.t_span):
        start, end = torch.tensor(problem.t_span, dtype=dtype).tolist()
        return Span(t0, t1, torch.full_like(t0, 1.0 if start <= end else -1.0), (start, end))
    return Span(t0, t1, torch.where((t1 - t0).detach() < 0, -1.0, 1.0).to(t0.dtype))


def read_save_at(given: Tensor | None, span: Span, *, batched: bool) -> Tensor | None:
    """Return the times to save at as `(times, batch)`, having checked them.

    Args:
        given: Those of the user, shape `(times,)` or `(times, batch)`; None to save every step.
        span: The interval.
        batched: Samples may have times of their own.

    Raises:
        ValueError: If they have the wrong shape, lie outside the interval, or turn back.
    """
    if given is None:
        return None
    batch = len(span.t0)
    if not 1 <= given.ndim <= 1 + batched or (given.ndim == 2 and given.shape[1] != batch) or len(given) == 0:
        wanted = "(times,) or (times, batch)" if batched else "(times,)"
        raise ValueError(f"`save_at` must have shape {wanted} with at least one time, got {tuple(given.shape)}.")
    ts = given if given.ndim == 2 else given.unsqueeze(-1)
    if not _follow(given, span):
        start, end = span.t0.detach(), span.t1.detach()
        low, high = torch.minimum(start, end), torch.maximum(start, end)
        # Shared times are checked once, against the part of the interval that all samples share.
        if given.ndim == 2 or not bool(((ts >= low.max()) & (ts <= high.min())).all()):
            ts = _clamp(ts, low, high, start, end)
        if len(ts) > 1:
            _check_direction(ts, start, end)
    return ts.expand(-1, batch)


def _follow(given: Tensor, span: Span) -> bool:
    """Whether a few times, in an interval that all samples share, are seen at once to run from start to end."""
    if span.ends is None or given.ndim == 2 or len(given) > MANY:
        return False
    start, end = span.ends
    times = [start, *given.detach().tolist(), end]
    return all(a <= b for a, b in pairwise(times)) if start <= end else all(a >= b for a, b in pairwise(times))


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
