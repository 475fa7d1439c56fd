"""Trajectories of fitted models on a fine grid, within and beyond the measurements."""

from __future__ import annotations

import numpy as np
import torch

from ude.discovery import Discovery
from ude.fit import Fit
from ude.problems import SolveError

POINTS = 400
BEYOND = 1.5
"""How far beyond the measurements models are drawn, in lengths of the measured interval."""


def fine_grid(fit: Fit | Discovery, *, beyond: float = 0.0) -> torch.Tensor:
    """Times of every trajectory from its first to its last measurement and `beyond`, shape `(groups, times)`."""
    start, end = fit.data.ts[:, :1], fit.data.ts[:, -1:]
    steps = torch.linspace(0, 1 + beyond, round(POINTS * (1 + beyond)) + 1, dtype=fit.data.ts.dtype)
    return start + (end - start) * steps


def trajectory(fit: Fit | Discovery, ts: torch.Tensor) -> np.ndarray:
    """States at `ts` of shape `(groups, times)`; NaN after a solve has failed.

    Returns:
        Array of shape `(groups, times, states)`.
    """
    try:
        return fit.predict(ts).ys.detach().numpy()
    except SolveError as error:
        ys = fit.model.coordinates.decode(error.solution.ys)
        return ys.detach().permute(1, 0, 2).numpy()


def period(ts: np.ndarray, y: np.ndarray) -> float | None:
    """Mean distance of the maxima of a regular oscillation; None if there is none.

    A maximum counts if it stands out by a tenth of the range; at least three must follow each other at distances
    that differ by at most a tenth, and they must not die out.

    Example:
        >>> t = np.linspace(0, 40, 2001)
        >>> round(period(t, np.sin(t)), 3)
        6.283
    """
    if not np.isfinite(y).all() or not np.ptp(y):
        return None
    inner = np.flatnonzero((y[1:-1] > y[:-2]) & (y[1:-1] >= y[2:])) + 1
    high = inner[y[inner] > y.min() + 0.5 * np.ptp(y)]
    if len(high) < 3:
        return None
    gaps = np.diff([_vertex(ts[i - 1 : i + 2], y[i - 1 : i + 2]) for i in high])
    return float(gaps.mean()) if np.ptp(gaps) <= 0.1 * gaps.mean() else None


def _vertex(t: np.ndarray, y: np.ndarray) -> float:
    """Where the parabola through three equidistant points has its maximum."""
    curvature = y[0] - 2 * y[1] + y[2]
    return float(t[1] + 0.5 * (t[1] - t[0]) * (y[0] - y[2]) / curvature) if curvature else float(t[1])
