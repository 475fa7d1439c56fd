"""Trajectories of fitted models on a fine grid, within and beyond the measurements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ude.discovery import Discovery
from ude.fit import Fit
from ude.problems import SolveError

POINTS = 400
BEYOND = 1.5
"""How far beyond the measurements models are drawn, in lengths of the measured interval."""
ACCURACY = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Both models on a fine grid that goes on beyond the measurements.

    Args:
        ts: Times of every trajectory, shape `(groups, times)`.
        measured: Number of times that lie within the measurements.
        network: States of the hybrid model, shape `(groups, times, states)`; NaN after a solve has failed.
        recovered: States of the recovered equations, same shape.
        residuals: Measured values minus recovered equations, shape `(groups, measurements, states)`.
    """

    ts: np.ndarray
    measured: int
    network: np.ndarray
    recovered: np.ndarray
    residuals: np.ndarray

    @classmethod
    def of(cls, fit: Fit, discovery: Discovery) -> Paths:
        """Solve both models."""
        start, end = fit.data.ts[:, :1], fit.data.ts[:, -1:]
        steps = torch.linspace(0, 1 + BEYOND, round(POINTS * (1 + BEYOND)) + 1, dtype=fit.data.ts.dtype)
        ts = start + (end - start) * steps
        return cls(
            ts=ts.numpy(),
            measured=POINTS + 1,
            network=_solve(fit, ts),
            recovered=_solve(discovery, ts),
            residuals=fit.data.ys.numpy() - _solve(discovery, fit.data.ts),
        )

    @property
    def period(self) -> float | None:
        """Period of the first state of the recovered equations in the first trajectory, if they oscillate."""
        return period(self.ts[0], self.recovered[0, :, 0])


def _solve(model: Fit | Discovery, ts: torch.Tensor) -> np.ndarray:
    try:
        return model.predict(ts, rtol=ACCURACY).ys.detach().numpy()
    except SolveError as error:
        ys = model.model.coordinates.decode(error.solution.ys)
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
