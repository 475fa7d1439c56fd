"""Stochastic equations on paths that are drawn beforehand, to be solved by constant steps without the loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ude.brownian import Increment


@dataclass
class Field:
    """Drift and diffusion, called as `f(t, y)` with `t` of shape `(batch, 1)`, and the increment of the next step."""

    f: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor, Tensor], Tensor]
    next: Increment | None = None
    is_diagonal: bool = True

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        return self.f(t.unsqueeze(-1).to(y.dtype), y)

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        return self.g(t.unsqueeze(-1).to(y.dtype), y)

    def increment(self, t: Tensor, dt: Tensor) -> Increment:
        assert self.next is not None
        return self.next


def draw(h: float | Tensor, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Increment:
    """Return increments of steps of length `h` and their Levy areas."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(2, *shape, generator=generator, dtype=dtype)
    root = torch.as_tensor(h, dtype=dtype).sqrt()
    return Increment(normal[0] * root, normal[1] * root / math.sqrt(12))


def merged(path: Increment, steps: int) -> Increment:
    """Return what a path, given on a grid, does in each of `steps` equal steps: first axis of `path` and of the result.

    The integral of the path over a step is the sum of those over its cells, so that the Levy area is exact as well.
    """
    w, h = (x.unflatten(0, (steps, -1)) for x in path)
    total = w.sum(1)
    start = w.cumsum(1) - w
    return Increment(total, (start + w / 2 + h).mean(1) - total / 2)


def integrate(method, field: Field, y0: Tensor, path: Increment, steps: int, t1: float = 1.0, step=None) -> Tensor:
    """Return the state at `t1` after equal steps from 0; `step` may change what becomes of a step result."""
    w, h = merged(path, steps)
    y, dt = y0, y0.new_full(y0.shape[:1], t1 / steps)
    for i in range(steps):
        field.next = Increment(w[i], h[i])
        result = method.step(field, i * dt, dt, y, ())
        y = result.y1 if step is None else step(result)
    return y


def observed_order(method, field: Field, y0: Tensor, exact: Tensor, path: Increment, steps: list[int], step=None):
    """Return the slope of the root mean square error at the end over the length of the steps, in logarithms."""
    errors = [(integrate(method, field, y0, path, n, step=step) - exact).square().mean().sqrt().item() for n in steps]
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]
