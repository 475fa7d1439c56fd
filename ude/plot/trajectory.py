"""Measurements over time, with the curves of models through and beyond them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ude.plot.style import BLUE, INK, ORANGE, TEAL, Array, grid_shape, legend, panels, plain, time_axis, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves: TypeAlias = Mapping[str, tuple[Array, Array]]
"""Label of a model -> times `(times,)` and states `(times, states)`."""

# Colour, line style and width of the first, second and third curve, in every figure of a report.
LINES = ((BLUE, "--", 1.8), (ORANGE, "-", 1.8), (TEAL, "-.", 1.6))


def data_and_fit(
    ts: Array, ys: Array, curves: Curves, *, states: Sequence[str], time: str = "t", heading: str = ""
) -> Figure:
    """Draw one panel per state with the measurements as circles and every model as a line.

    Args:
        ts: Times of the measurements, shape `(times,)`.
        ys: Measurements, shape `(times, states)`; NaN where not measured.
        curves: Models to draw, in the order of `LINES`.
        states: Names of the states.
        time: Name of the time axis, with its unit if it has one.
        heading: Added to the name of every panel, such as the name of a trajectory.

    Example:
        >>> figure = data_and_fit([0, 1, 2], [[1], [2], [4]], {"model": ([0, 2], [[1], [4]])}, states=["x"])
        >>> len(figure.axes)
        1
    """
    return _draw(np.asarray(ts, float), np.asarray(ys, float), curves, states, time, heading, extrapolated=False)


def extrapolation(
    ts: Array,
    ys: Array,
    curves: Curves,
    *,
    states: Sequence[str],
    time: str = "t",
    heading: str = "",
    cut: bool = True,
) -> Figure:
    """Draw `data_and_fit` with the time after the last measurement shaded.

    Arguments as there, and `cut`: whether curves that run away are cut off, so that the measurements stay visible.
    """
    data = np.asarray(ts, float), np.asarray(ys, float)
    return _draw(*data, curves, states, time, heading, extrapolated=True, cut=cut)


def _draw(
    ts: np.ndarray,
    ys: np.ndarray,
    curves: Curves,
    states: Sequence[str],
    time: str,
    heading: str,
    *,
    extrapolated: bool,
    cut: bool = True,
) -> Figure:
    rows, columns = grid_shape(len(states))
    figure, axes = panels(rows, columns, height=2.0 if columns == 1 else 1.8, share_x=True)
    for i, name in enumerate(states):
        ax = axes.flat[i]
        ax.plot(ts, ys[:, i], "o", ms=4.5, mfc="white", mec=INK, mew=1.1, label="measured", zorder=3)
        for (label, (t, y)), (color, dashes, width) in zip(curves.items(), LINES, strict=False):
            ax.plot(np.asarray(t), np.asarray(y)[:, i], dashes, color=color, lw=width, label=plain(label))
        title(ax, f"{name}, {heading}" if heading else name)
        if cut:
            _limits(ax, ys[:, i], extrapolated)
        if extrapolated:
            _shade(ax, float(ts.max()), curves)
    for ax in axes.flat[len(states) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        time_axis(ax, time, ts)
    legend(figure, axes.flat[0])
    return figure


def _limits(ax: Axes, y: np.ndarray, extrapolated: bool) -> None:
    """Keep a model that runs away from flattening the measurements."""
    measured = y[np.isfinite(y)]
    if not len(measured):
        return
    low, high = float(measured.min()), float(measured.max())
    span = (high - low or abs(high) or 1.0) * (1.5 if extrapolated else 0.5)
    bottom, top = ax.get_ylim()
    ax.set_ylim(max(bottom, low - span), min(top, high + span))


def _shade(ax: Axes, end: float, curves: Curves) -> None:
    last = max((float(np.asarray(t).max()) for t, _ in curves.values()), default=end)
    if last > end:
        ax.axvspan(end, last, color="#f1ede4", zorder=0, lw=0, label="no measurements")
