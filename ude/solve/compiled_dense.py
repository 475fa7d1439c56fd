"""Dense output of many times at once, compiled into one pass over memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ude.methods.explicit import ExplicitRungeKutta
from ude.methods.method import Method
from ude.solve.compilation import compiled
from ude.solve.trace import PackedAttempts, Trace

MANY = 4096
"""Numbers of the result from which compiling pays; it takes some seconds, once for each method and shape."""


def evaluate_compiled(method: Method, trace: Trace, ts: Tensor, index: Tensor) -> Tensor | None:
    """Return states at times `(times, batch)`; None where this is better done without compiling.

    Args:
        method: Knows the weights.
        trace: The attempts.
        ts: Times.
        index: The attempt that covers each time.
    """
    store = trace.store
    if not isinstance(store, PackedAttempts) or method.dense_evaluations:
        return None
    if store.states.requires_grad or ts.requires_grad or ts.numel() * store.states.shape[-1] < MANY:
        return None
    inputs = [store.states, trace.t.contiguous(), trace.dt.contiguous(), trace.t1.contiguous()]
    for x in inputs:
        torch._dynamo.maybe_mark_dynamic(x, 0)
    with torch.no_grad():
        return _function(method)(*inputs, index, ts.contiguous())


def _weights(method: Method, theta: Tensor) -> Sequence[Tensor]:
    """Return the weight of every stage; apart from each other, they fuse with what they are for."""
    if isinstance(method, ExplicitRungeKutta):
        return method.dense_weight_rows(theta)
    return method.dense_weights(theta).unbind()


@functools.cache
def _function(method: Method) -> Callable[..., Tensor]:
    def interpolation(states: Tensor, t: Tensor, dt: Tensor, t1: Tensor, index: Tensor, ts: Tensor) -> Tensor:
        start, length, end = (x.gather(0, index) for x in (t, dt, t1))
        weights = _weights(method, (ts - start) / torch.where(length == 0, 1.0, length))
        sample = torch.arange(ts.shape[1], device=ts.device)
        slope = torch.zeros_like(states[index, 1, sample])
        for i in range(len(weights)):
            slope = slope + weights[i].to(states.dtype).unsqueeze(-1) * states[index, 2 + i, sample]
        between = states[index, 1, sample] + length.to(states.dtype).unsqueeze(-1) * slope
        return torch.where((ts == end).unsqueeze(-1), states[index, 0, sample], between)

    return compiled(interpolation, f"dense output of {method}")
