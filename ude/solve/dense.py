"""States between the steps, many at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.methods.method import Method, StepResult, SwitchingMethod
from ude.solve.compiled_dense import evaluate_compiled
from ude.solve.trace import Trace


def locate(trace: Trace, ts: Tensor, direction: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Find the accepted attempt that covers each time, per sample.

    Args:
        trace: The attempts.
        ts: Times, shape `(times, batch)`.
        direction: 1 or -1 per sample.
        start: Time before the first attempt, shape `(batch,)`.

    Returns:
        Index of the attempt and whether the time lies in `(start, end]`, both of shape `(times, batch)`.
    """
    wanted = (ts * direction).T.contiguous()
    ends = (trace.t1.detach() * direction).T.contiguous()
    # A rejected attempt ends where its predecessor ended, so the first end at or after a time is an accepted one.
    index = torch.searchsorted(ends, wanted)
    inside = (index < ends.shape[1]) & (wanted > (start.detach() * direction).unsqueeze(-1))
    return index.clamp(max=ends.shape[1] - 1).T.contiguous(), inside.T.contiguous()


def evaluate(
    field: FlatField,
    method: Method,
    trace: Trace,
    ts: Tensor,
    index: Tensor,
    inside: Tensor,
    *,
    differentiable: bool,
) -> tuple[Tensor, Tensor]:
    """Evaluate the continuous extension at many times at once.

    Args:
        field: Vector field, for methods that need extra stages.
        method: Knows the weights.
        trace: The attempts.
        ts: Times, shape `(times, batch)`.
        index: The attempt that covers each time, same shape.
        inside: Where the result matters, same shape.
        differentiable: Send the gradient of every state through the interpolant, to the times.

    Returns:
        States `(times, batch, state)`, and the extra evaluations per sample.
    """
    sample = torch.arange(ts.shape[1], device=ts.device)
    at_end = inside & (ts.detach() == _pick(trace.t1.detach(), index, sample))
    between = inside if differentiable else inside & ~at_end
    evaluations = torch.zeros_like(sample)
    if not bool(between.any()):
        return _ends(trace, index, sample), evaluations
    if method.dense_evaluations:
        used = torch.zeros_like(trace.active)
        used[index[between], sample.expand_as(index)[between]] = True
        evaluations = _evaluations(method, trace, used)
    fused = None if differentiable else evaluate_compiled(method, trace, ts, index)
    if fused is not None:
        return fused, evaluations
    values = _interpolate(field, method, trace, ts, index, between)
    if bool(at_end.any()):
        ends = _ends(trace, index, sample)
        if differentiable:
            ends = ends.detach() + (values - values.detach())
        values = torch.where(at_end.unsqueeze(-1), ends, values)
    return values, evaluations


def _evaluations(method: Method, trace: Trace, used: Tensor) -> Tensor:
    """Return how often the extra stages of the attempts that are `used` evaluate the vector field, per sample."""
    if trace.evaluations is None or not isinstance(method, SwitchingMethod):  # so they are all of one kind
        return used.sum(0) * method.dense_evaluations
    rows = used.any(-1).nonzero().squeeze(-1).tolist()
    return (used[rows] * method.extra_evaluations(trace.store.starts(rows)[1].unbind(2))).sum(0)


def _interpolate(field: FlatField, method: Method, trace: Trace, ts: Tensor, index: Tensor, between: Tensor) -> Tensor:
    r"""Return $y_0 + \Delta t \sum_i b_i(\theta) k_i$ where `between`, something finite elsewhere."""
    stacked = trace.store.is_stacked and not method.dense_evaluations
    rows, position = (range(len(trace.t)), index) if stacked else _compress(index, between)
    t, dt, y0, stages = _stages(field, method, trace, rows)
    flat = (position * ts.shape[1] + torch.arange(ts.shape[1], device=ts.device)).flatten()
    length = torch.where(between, dt.flatten()[flat].view_as(ts), 1.0)
    theta = torch.where(between, (ts - t.flatten()[flat].view_as(ts)) / length, 0.0)
    weights = method.dense_weights(theta).flatten(1).T.unsqueeze(1).to(y0.dtype)
    slope = torch.bmm(weights, stages.flatten(0, 1).index_select(0, flat)).squeeze(1)
    start = y0.flatten(0, 1).index_select(0, flat)
    return (start + length.reshape(-1, 1) * slope).unflatten(0, ts.shape)


def _stages(
    field: FlatField, method: Method, trace: Trace, rows: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return start, length, initial state and stages `(rows, batch, stages, state)` of these attempts."""
    t, dt = (x if len(rows) == len(x) else x[list(rows)] for x in (trace.t, trace.dt.detach()))
    y0, stages = trace.store.starts(rows)
    if not method.dense_evaluations:
        return t, dt, y0, stages
    y1 = trace.store.ends(rows)
    extended = [
        method.dense_stages(field, t[i], dt[i], y0[i], StepResult(y1[i], None, None, stages[i].unbind(1), ()))
        for i in range(len(rows))
    ]
    return t, dt, y0, torch.stack([torch.stack(step, dim=1) for step in extended])


def _ends(trace: Trace, index: Tensor, sample: Tensor) -> Tensor:
    """Return the state at the end of each step named by `index`."""
    rows, position = (range(len(trace.t)), index) if trace.store.is_stacked else _compress(index, None)
    return _pick(trace.store.ends(rows), position, sample)


def _compress(index: Tensor, wanted: Tensor | None) -> tuple[list[int], Tensor]:
    """Return the attempts that occur in `index` where `wanted`, and the place of every entry of `index` among them."""
    rows = (index if wanted is None else index[wanted]).unique()
    return rows.tolist(), torch.searchsorted(rows, index.contiguous()).clamp(max=len(rows) - 1)


def _pick(values: Tensor, index: Tensor, sample: Tensor) -> Tensor:
    """Return `values[index[i, j], j]` for values of shape `(rows, batch, ...)`."""
    if len(sample) == 1:
        return values.index_select(0, index[:, 0])
    return values[index, sample]
