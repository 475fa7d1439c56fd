"""Smooth curves, and their derivatives, through noisy, irregular and incomplete measurements."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ude.problems import Trajectories

_FEWEST_FOR_SPLINE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothCurves:
    """Smoothed measurements on a regular grid within each group.

    Where a state has fewer than two measurements in a group, its values and derivatives are NaN; outside the
    times between its first and last measurement they are extrapolated and `is_inside` is False.

    Args:
        ts: Grid, shape `(groups, points)`.
        ys: Values on the grid, shape `(groups, points, states)`.
        derivatives: Time derivatives on the grid, same shape.
        is_inside: True between the first and the last measurement of a state, same shape.
    """

    ts: Tensor
    ys: Tensor
    derivatives: Tensor
    is_inside: Tensor


def smooth(data: Trajectories, *, points: int | None = None) -> SmoothCurves:
    r"""Fit a smoothing spline to every state of every group.

    The spline minimises $\sum_j (y_j - s(t_j))^2 + \lambda \int s''(t)^2\, dt$, with $\lambda$ by generalised
    cross-validation; fewer than five measurements are interpolated instead. Values that are missing (NaN) are
    left out, so that every state may have its own times; repeated times are averaged.

    Args:
        data: Measurements.
        points: Points of the grid; by default twice as many as there are times, and at least 50.

    Returns:
        Values and derivatives on a regular grid.

    Example:
        >>> t = torch.linspace(0, 3, 31, dtype=torch.float64)
        >>> curves = smooth(Trajectories.from_arrays(t, t.sin()[:, None]), points=31)
        >>> bool((curves.derivatives[0, :, 0] - t.cos()).abs().max() < 1e-2)
        True

    Reference:
        Craven and Wahba (1978), Smoothing noisy data with spline functions.
    """
    groups, times, states = data.ys.shape
    points = points or max(2 * times, 50)
    fraction = torch.linspace(0, 1, points, dtype=data.ts.dtype)
    ts = data.ts[:, :1] + fraction * (data.ts[:, -1:] - data.ts[:, :1])
    ys, derivatives = (data.ys.new_full((groups, points, states), torch.nan) for _ in range(2))
    is_inside = torch.zeros_like(ys, dtype=torch.bool)
    for g in range(groups):
        for i in range(states):
            t, y = _measured(data.ts[g], data.ys[g, :, i])
            if len(t) < 2:
                continue
            ys[g, :, i], derivatives[g, :, i] = _smooth_one(t, y, ts[g])
            is_inside[g, :, i] = (ts[g] >= t[0]) & (ts[g] <= t[-1])
    return SmoothCurves(ts=ts, ys=ys, derivatives=derivatives, is_inside=is_inside)


def _measured(t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct times with a measurement, and the mean measurement at each."""
    keep = ~y.isnan()
    distinct, where = t[keep].unique(return_inverse=True)
    total = torch.zeros_like(distinct).index_add(0, where, y[keep])
    return distinct, total / where.bincount(minlength=len(distinct))


def _smooth_one(t: Tensor, y: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Return values and derivatives on the grid."""
    from scipy.interpolate import make_interp_spline, make_smoothing_spline

    # In units of the mean spacing and of the spread of the data, so that the search for lambda is well scaled.
    spacing = float((t[-1] - t[0]) / (len(t) - 1))
    level, spread = float(y.mean()), float(y.std()) or 1.0
    x, z = ((t - t[0]) / spacing).double().numpy(), ((y - level) / spread).double().numpy()
    if len(t) < _FEWEST_FOR_SPLINE:
        spline = make_interp_spline(x, z, k=min(3, len(t) - 1))
    else:
        spline = make_smoothing_spline(x, z)
    at = ((grid - t[0]) / spacing).double().numpy()
    # A cubic runs away beyond the last measurement: continue in a straight line.
    inside = at.clip(0.0, x[-1])
    slope = torch.as_tensor(spline(inside, 1), dtype=y.dtype)
    values = torch.as_tensor(spline(inside), dtype=y.dtype) + slope * torch.as_tensor(at - inside, dtype=y.dtype)
    return level + spread * values, slope * spread / spacing
