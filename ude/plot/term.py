"""What a network learnt for an unknown term, beside the equation recovered from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ude.plot.style import BLUE, INK, ORANGE, Array, grid_shape, legend, panels, plain, time_axis, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def term_along_trajectory(
    ts: Array, learned: Array, recovered: Array | None, *, outputs: Sequence[str], time: str = "t"
) -> Figure:
    """Draw the learned and the recovered term along the fitted trajectory, one panel per output.

    Args:
        ts: Times, shape `(times,)`.
        learned: Output of the network, shape `(times, outputs)`.
        recovered: Value of the recovered equation, same shape, if there is one.
        outputs: What every output is, such as `in hare'`.
        time: Name of the time axis.
    """
    rows, columns = grid_shape(len(outputs))
    figure, axes = panels(rows, columns, height=1.9, share_x=True)
    for i, name in enumerate(outputs):
        ax = axes.flat[i]
        ax.plot(np.asarray(ts), np.asarray(learned)[:, i], "--", color=BLUE, lw=1.8, label="learned by the network")
        if recovered is not None:
            ax.plot(np.asarray(ts), np.asarray(recovered)[:, i], color=ORANGE, lw=1.8, label="recovered equation")
        title(ax, name)
    for ax in axes.flat[len(outputs) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        time_axis(ax, time, np.round(np.asarray(ts, float)[[0, -1]], 9))
    legend(figure, axes.flat[0])
    return figure


def term_curve(
    x: Array,
    learned: Array,
    recovered: Array | None,
    *,
    name: str,
    output: str,
    visited: Array = (),
) -> Figure:
    """Draw a term of one input over that input.

    Args:
        x: Where the term was evaluated, shape `(points,)`.
        learned: Output of the network, shape `(points,)`.
        recovered: Value of the recovered equation, same shape, if there is one.
        name: Name of the input.
        output: What the output is.
        visited: Input values along the trajectories, marked on the axis.
    """
    figure, axes = panels(1, 1, height=2.8)
    ax = axes[0, 0]
    ax.plot(np.asarray(x), np.asarray(learned), "--", color=BLUE, lw=1.8, label="learned by the network")
    if recovered is not None:
        ax.plot(np.asarray(x), np.asarray(recovered), color=ORANGE, lw=1.8, label="recovered equation")
    points = np.asarray(visited, float)
    if points.size:
        ticks = np.full_like(points, 0.02)
        label = "states along the trajectories"
        ax.plot(points, ticks, "|", color=INK, ms=8, alpha=0.5, label=label, transform=ax.get_xaxis_transform())
    ax.set_xlabel(plain(name), fontsize=9.5)
    title(ax, output)
    legend(figure, ax)
    return figure


def term_map(
    x: Array,
    y: Array,
    learned: Array,
    recovered: Array | None,
    *,
    names: tuple[str, str],
    output: str,
    visited: Array = (),
) -> Figure:
    """Draw a term of two inputs as heat maps: learned, recovered, and their difference.

    All maps share one colour scale that is symmetric about zero. The states along the trajectory are drawn on
    top: elsewhere the network extrapolates.

    Args:
        x: Grid of the first input, shape `(columns,)`.
        y: Grid of the second input, shape `(rows,)`.
        learned: Output of the network, shape `(rows, columns)`.
        recovered: Value of the recovered equation, same shape, if there is one.
        names: Names of the two inputs.
        output: What the output is.
        visited: Input values along the trajectories, shape `(points, 2)`.
    """
    maps = {"learned": np.asarray(learned, float)}
    if recovered is not None:
        maps["recovered"] = np.asarray(recovered, float)
        maps["learned - recovered".replace("-", "−")] = maps["learned"] - maps["recovered"]
    finite = [m[np.isfinite(m)] for m in list(maps.values())[:2]]
    limit = max((float(np.abs(m).max()) for m in finite if m.size), default=1.0) or 1.0
    figure, axes = panels(1, len(maps), height=2.35, share_x=True, share_y=True)
    points = np.asarray(visited, float).reshape(-1, 2)
    for ax, (label, values) in zip(axes[0], maps.items(), strict=True):
        ax.grid(visible=False)
        ax.pcolormesh(
            np.asarray(x), np.asarray(y), values, cmap="RdBu_r", vmin=-limit, vmax=limit, shading="gouraud",
            rasterized=True,
        )  # fmt: skip
        ax.plot(points[:, 0], points[:, 1], ".", color=INK, ms=2.5, alpha=0.7)
        ax.set(xlim=(np.min(x), np.max(x)), ylim=(np.min(y), np.max(y)))
        ax.set_xlabel(plain(names[0]), fontsize=9.5)
        title(ax, label)
    axes[0, 0].set_ylabel(plain(names[1]), fontsize=9.5)
    bar = figure.colorbar(axes[0, 0].collections[0], ax=list(axes[0]), shrink=0.95, pad=0.02)
    bar.ax.tick_params(labelsize=8.5)
    bar.set_label(plain(output), fontsize=9)
    return figure
