"""Typical sizes of states, rates and times, from the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ude.fit.smoothing import SmoothCurves
from ude.problems import Trajectories


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """Typical sizes, all positive.

    Args:
        state: Standard deviation of each state's measurements, shape `(states,)`. Where a state is
            constant its size, where it was never measured its size at the start, and else 1.
        rate: Root mean square of each state's time derivative, shape `(states,)`.
        time: Time in which the states change by about their standard deviation.
    """

    state: Tensor
    rate: Tensor
    time: float


def scales_of(data: Sequence[Trajectories], curves: Sequence[SmoothCurves], y0: Tensor) -> Scales:
    """Return the scales of measurements and of the curves through them.

    Args:
        data: Measurements of the same system.
        curves: The smoothed measurements.
        y0: Initial states where they are known and NaN elsewhere, shape `(..., states)`.
    """
    states = y0.shape[-1]
    start = y0.reshape(-1, states).nan_to_num(nan=0.0).abs().amax(dim=0)
    values = torch.cat([d.ys.reshape(-1, states) for d in data])
    size = values.nan_to_num(nan=0.0).abs().amax(dim=0)
    spread = (values - values.nanmean(dim=0)).square().nanmean(dim=0).sqrt().nan_to_num(nan=0.0)
    # The spread of a constant column is rounding.
    state = _first_positive(torch.where(spread > 1e-9 * size, spread, 0.0), size, start)
    slopes = torch.cat([torch.where(c.is_inside, c.derivatives, torch.nan).reshape(-1, states) for c in curves])
    rate = slopes.square().nanmean(dim=0).sqrt().nan_to_num(nan=0.0)
    moving = rate > 1e-9 * state
    duration = float(max((d.ts[:, -1] - d.ts[:, 0]).max() for d in data))
    time = min(float((state / rate)[moving].median()), duration) if bool(moving.any()) else duration / 10
    return Scales(state=state, rate=torch.where(moving, rate, state / time), time=time)


def _first_positive(*choices: Tensor) -> Tensor:
    """Return, for each state, the first choice that is positive, and 1 where none is."""
    result = torch.ones_like(choices[0])
    for choice in reversed(choices):
        result = torch.where(choice > 0, choice, result)
    return result
