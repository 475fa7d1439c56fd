"""Residuals, candidate models, coefficients and the history of a fit."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from ude.plot.style import BLUE, FAINT, GREY, INK, ORANGE, RED, Array, panels, plain, time_axis, title, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def residuals(ts: Array, values: Array, *, states: Sequence[str], time: str = "t") -> Figure:
    """Draw measured minus modelled values over time, and their quantiles against a normal distribution.

    Structure over time, or points off the line, say that the model misses something or the noise is not normal.

    Args:
        ts: Times, shape `(times,)`.
        values: Residuals, shape `(times, states)`; NaN where nothing was measured.
        states: Names of the states.
        time: Name of the time axis.
    """
    t, r = np.asarray(ts, float), np.asarray(values, float)
    figure, axes = panels(len(states), 2, height=1.75)
    for (left, right), name, column in zip(axes, states, r.T, strict=True):
        known = np.isfinite(column)
        left.axhline(0, color=FAINT, lw=0.8)
        left.vlines(t[known], 0, column[known], color=BLUE, lw=1.2)
        left.plot(t[known], column[known], "o", ms=4, color=BLUE)
        title(left, f"{name}: measured − model")
        _quantiles(right, column[known])
    time_axis(axes[-1, 0], time, t)
    axes[-1, 1].set_xlabel("quantile of a normal distribution", fontsize=9.5)
    title(axes[0, 1], "normal distribution?")
    return figure


def candidates(terms: Sequence[int], bic: Array, *, chosen: int) -> Figure:
    """Draw the Bayesian information criterion of every candidate model over its number of terms.

    The height is the distance to the best candidate: below 2 is a tie, above 10 decisive.

    Args:
        terms: Number of recovered terms of every candidate.
        bic: Criterion of every candidate; one that could not be simulated is not finite and is left out.
        chosen: Index of the model that was chosen.
    """
    scores = np.asarray(bic, float)
    counts = np.asarray(terms, float)
    finite = np.isfinite(scores)
    above = scores - (scores[finite].min() if finite.any() else 0.0)
    figure, axes = panels(1, 1, height=2.8)
    ax = axes[0, 0]
    ax.axhspan(0, 2, color="#eef3ee", zorder=0, lw=0)
    ax.axhline(10, color=FAINT, lw=0.8, ls=":")
    ax.plot(counts[finite], above[finite], "o", ms=6, mfc="white", mec=BLUE, mew=1.4)
    if finite[chosen]:
        ax.plot(counts[chosen], above[chosen], "o", ms=9, color=ORANGE, zorder=4)
        side = 1 if counts[chosen] == counts[finite].min() else -1
        ax.annotate("chosen", (counts[chosen], above[chosen]), xytext=(9 * side, 6), textcoords="offset points",
                    ha="left" if side > 0 else "right", fontsize=9, color=INK, fontweight="bold")  # fmt: skip
    ax.set_yscale("symlog", linthresh=10, linscale=1.0)
    ax.set_ylim(-1.5, max(20.0, 2 * float(above[finite].max()) if finite.any() else 0.0))
    right = ("axes fraction", "data")
    for height, text in ((2, "a tie"), (10, "decisive above")):
        ax.annotate(text, (0.995, height), xycoords=right, xytext=(0, 2), textcoords="offset points", ha="right",
                    fontsize=8, color=FAINT)  # fmt: skip
    whole_numbers(ax)
    ax.margins(x=0.15)
    ax.set_xlabel("recovered terms in the model", fontsize=9.5)
    title(ax, "BIC above the best candidate")
    return figure


def coefficients(names: Sequence[str], values: Array, low: Array, high: Array, *, level: float = 0.9) -> Figure:
    """Draw every coefficient's interval relative to its estimate, one row per coefficient.

    An interval that reaches 0 does not tell the coefficient's sign.

    Args:
        names: What each coefficient multiplies, or its name.
        values: Estimates.
        low: Lower ends of the intervals.
        high: Upper ends of the intervals.
        level: Probability that an interval covers the true number, for the axis.
    """
    estimate, low, high = (np.atleast_1d(np.asarray(v, float)) for v in (values, low, high))
    scale = np.where(estimate == 0, 1.0, estimate)
    ends = np.sort(np.stack([low / scale, high / scale]), axis=0) * 100
    figure, axes = panels(1, 1, height=0.75 + 0.34 * len(names))
    ax = axes[0, 0]
    rows = np.arange(len(names))[::-1]
    for row, start, stop in zip(rows, *np.clip(ends, -60, 260), strict=True):
        ax.plot([start, stop], [row, row], color=BLUE if start > 0 else RED, lw=2.4, solid_capstyle="butt")
    ax.plot(np.full(len(rows), 100.0), rows, "o", ms=6, color=ORANGE, zorder=3)
    ax.axvline(0, color=INK, lw=0.9)
    ax.set(xlim=(min(-8.0, float(np.clip(ends.min(), -60, 0)) - 5), max(130.0, float(np.clip(ends.max(), 0, 260)) + 5)))
    ax.set_ylim(-0.7, len(names) - 0.3)
    ax.set_yticks(
        rows, [f"{plain(name, longest=36)} = {value:.4g}" for name, value in zip(names, estimate, strict=True)]
    )
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"{100 * level:.0f} % interval, in % of the estimate", fontsize=9.5)
    return figure


def history(phases: Sequence[tuple[str, Array]], *, best: int = 0) -> Figure:
    """Draw the loss of every replicate over the iterations of every phase of a fit.

    Args:
        phases: Name of each phase and its losses, shape `(iterations,)` or `(iterations, replicates)`.
        best: Index of the replicate that was kept.
    """
    figure, axes = panels(1, 1, height=2.6)
    ax = axes[0, 0]
    start = 0
    for k, (name, losses) in enumerate(phases):
        values = np.asarray(losses, float)
        values = values.reshape(len(values), -1)
        its = np.arange(start, start + len(values))
        others = [i for i in range(values.shape[1]) if i != best]
        if others:
            ax.plot(its, values[:, others], color=GREY, lw=0.7, alpha=0.7)
        ax.plot(its, values[:, min(best, values.shape[1] - 1)], color=BLUE, lw=1.8, zorder=3)
        if k % 2:
            ax.axvspan(start, start + len(values), color="#f6f6f6", zorder=0, lw=0)
        # The last name ends at the right border, so that it never leaves the picture.
        is_last = k == len(phases) - 1 and k > 0
        end = start + len(values)
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 8.5, "va": "top"}
        ax.annotate(plain(name), (end if is_last else start, 1 - 0.08 * (k % 2)), xytext=(-4 if is_last else 4, -3),
                    ha="right" if is_last else "left", color=FAINT, **place)  # fmt: skip
        start += len(values)
    ax.set_yscale("log")
    bottom, top = _loss_range(phases, best)
    ax.set_ylim(bottom, top * (top / bottom) ** 0.2)  # room for the names of the phases
    ax.set_xlim(0, max(start, 1))
    ax.set_xlabel("iteration", fontsize=9.5)
    title(ax, "loss" if not phases or np.asarray(phases[0][1]).ndim < 2 else "loss (best replicate in blue)")
    return figure


def _loss_range(phases: Sequence[tuple[str, Array]], best: int) -> tuple[float, float]:
    """Limits for the losses: a solve that ran away for a moment does not flatten the rest."""
    all_losses = [np.asarray(losses, float).reshape(len(np.asarray(losses)), -1) for _, losses in phases]
    values = np.concatenate([losses.ravel() for losses in all_losses]) if all_losses else np.ones(1)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return 0.1, 1.0
    starts = [losses[0, min(best, losses.shape[1] - 1)] for losses in all_losses if len(losses)]
    highest = max([start for start in starts if np.isfinite(start)], default=values.max())
    bottom, top = float(values.min()), float(min(values.max(), 30 * highest))
    return (0.7 * bottom, 1.4 * top) if top > bottom else (0.5 * bottom, 2 * bottom)


def _quantiles(ax: Axes, values: np.ndarray) -> None:
    n = len(values)
    if n < 3 or not float(values.std()):
        ax.set_visible(False)
        return
    normal = NormalDist()
    theory = np.array([normal.inv_cdf((i + 0.5) / n) for i in range(n)])
    ax.plot(theory, values.mean() + values.std(ddof=1) * theory, color=FAINT, lw=1)
    ax.plot(theory, np.sort(values), "o", ms=4, color=BLUE)
