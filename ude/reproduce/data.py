"""Synthetic measurements as the papers made them."""

from __future__ import annotations

import torch
from torch import Tensor

from ude.problems import ODEProblem
from ude.solve import solve


def exact(problem: ODEProblem, ts: Tensor) -> Tensor:
    """Solution at `ts`, shape `(times, states)`, to twelve digits."""
    with torch.no_grad():
        return solve(problem, save_at=ts, rtol=1e-12, atol=1e-12, dense=False).ys


def relative_noise(clean: Tensor, level: float, generator: torch.Generator) -> Tensor:
    r"""Add noise proportional to each state's mean: $x_{ji} + \ell\, \bar x_i\, \xi_{ji}$ with standard normal $\xi$.

    Args:
        clean: States, shape `(times, states)`.
        level: $\ell$.
        generator: Source of $\xi$.
    """
    draw = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    return clean + level * clean.mean(dim=0) * draw
