"""The solution followed along paths, given its gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ude.bsde.equation import SemilinearPDE
from ude.bsde.networks import Model
from ude.bsde.paths import Paths

_CHUNK = 256
"""Paths followed at the same time."""


def follow(pde: SemilinearPDE, paths: Paths, u0: Tensor, gradients: Tensor) -> Tensor:
    r"""Return u at the end of every path minus g there, shape `(paths, 1)`.

    $$u_{n+1} = u_n - h_n f(t_n, X_n, u_n, \nabla u_n) + \nabla u_n \cdot \sigma_n \Delta W_n$$

    Args:
        pde: The equation.
        paths: The paths.
        u0: u at the start, a single number.
        gradients: Of u along the paths, shape `(steps, paths, d)`.
    """
    gains = (gradients * paths.noise).sum(-1, keepdim=True)
    times, lengths = paths.times, paths.ts.diff()
    u = u0.expand(gains.shape[1], 1)
    for n, gain in enumerate(gains):
        u = u - lengths[n] * pde.driver(times[n], paths.xs[n], u, gradients[n]) + gain
    return u - pde.terminal(paths.end)


@dataclass(frozen=True, slots=True)
class Estimate:
    """u at the start, as fresh paths have it.

    Args:
        u0: The value.
        standard_error: Its standard error over the paths.
        mismatch: Root mean square over the paths by which u misses g at their ends.
    """

    u0: float
    standard_error: float
    mismatch: float


@torch.no_grad()
def estimate(pde: SemilinearPDE, model: Model, draw: Callable[[int], Paths], count: int) -> Estimate:
    r"""Return the start from which u meets g in the mean over fresh paths, $\mathbb{E}[u_N - g(X_N)] = 0$.

    One step of Newton's method on all paths, whose slope is a difference, after a few on the first of them. With the
    gradient given, the mismatch of a path has variance but no bias from training; without it, this is the plain Monte
    Carlo method.
    """
    paths = draw(min(count, _CHUNK))
    gradients = model.gradients(paths)
    u0, shift = model.start().clone(), _shift(pde, paths)
    for _ in range(3):
        missed, slope = _linear(pde, paths, u0, gradients, shift)
        u0 = u0 - missed.mean() / slope
    parts = []
    for first in range(0, count, _CHUNK):
        paths = draw(min(_CHUNK, count - first))
        parts.append(_linear(pde, paths, u0, model.gradients(paths), shift))
    missed = torch.cat([part[0] for part in parts]).double()
    slope = torch.stack([part[1] for part in parts]).double().mean()
    centred = missed - missed.mean()
    return Estimate(
        u0=float(u0.double() - missed.mean() / slope),
        standard_error=float(centred.std() / slope.abs() / count**0.5),
        mismatch=float(centred.square().mean().sqrt()),
    )


def _shift(pde: SemilinearPDE, paths: Paths) -> Tensor:
    """Return a small step in u: large against rounding, small against the scale on which f bends."""
    value = pde.terminal(paths.end)
    return torch.finfo(value.dtype).eps ** (1 / 3) * value.abs().amax().clamp_min(torch.finfo(value.dtype).tiny)


def _linear(pde: SemilinearPDE, paths: Paths, u0: Tensor, gradients: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mismatch of every path, and the derivative of its mean by the start."""
    missed = follow(pde, paths, u0, gradients)
    return missed, (follow(pde, paths, u0 + shift, gradients) - missed).mean() / shift
