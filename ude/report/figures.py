"""The figures of a report, drawn from a fit and what was recovered from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from ude import plot
from ude.fit import Fit
from ude.models import UDE, Term
from ude.problems import Trajectories
from ude.report.curves import Paths
from ude.report.numbers import sentence
from ude.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_GROUPS = 6
NETWORK, RECOVERED = "hybrid model (network)", "recovered equations"


def fit_pictures(data: Trajectories, paths: Paths) -> tuple[Picture, ...]:
    """Measurements with the curves of both models, one picture per trajectory, at most `MAX_GROUPS`."""
    return _curves(data, paths, plot.data_and_fit, "data_and_fit", paths.measured)


def extrapolation_pictures(data: Trajectories, paths: Paths) -> tuple[Picture, ...]:
    """As `fit_pictures`, with all of the time after the measurements."""
    return _curves(data, paths, plot.extrapolation, "extrapolation", paths.ts.shape[1])


def _curves(
    data: Trajectories, paths: Paths, draw: Callable[..., Figure], name: str, times: int
) -> tuple[Picture, ...]:
    several = len(data.groups) > 1
    pictures = []
    for g, group in enumerate(data.groups[:MAX_GROUPS]):
        t = paths.ts[g, :times]
        figure = draw(
            data.ts[g].numpy(),
            data.ys[g].numpy(),
            {NETWORK: (t, paths.network[g, :times]), RECOVERED: (t, paths.recovered[g, :times])},
            states=data.states,
            time=data.time,
            heading=group if several else "",
        )
        caption = f"Measurements, {NETWORK} and {RECOVERED}" + (f", trajectory {group}." if several else ".")
        pictures.append(Picture(name=f"{name}_{g + 1}" if several else name, figure=figure, caption=caption))
    return tuple(pictures)


def term_pictures(fit: Fit, recovered: UDE, paths: Paths, labels: Mapping[str, str]) -> tuple[Picture, ...]:
    """What every network learnt beside the recovered term: along the trajectories, and over one or two inputs.

    Args:
        fit: The trained networks.
        recovered: The model with the recovered terms in their place.
        paths: Where the terms are looked at.
        labels: How to name each output of each term, by `"term.output"`.
    """
    ts = torch.from_numpy(paths.ts[:, : paths.measured])
    ys = torch.from_numpy(paths.network[:, : paths.measured])
    learned, found = _record(fit, fit.model, ts, ys), _record(fit, recovered, ts, ys)
    pictures = []
    for name, (x, value) in learned.items():
        term = fit.model.terms[name]
        if not isinstance(term, Term):
            continue
        outputs = [labels.get(f"{name}.{output}", output) for output in term.outputs]
        pictures.append(
            Picture(
                name=f"term_{name}",
                figure=plot.term_along_trajectory(
                    ts[0].numpy(), value[0], found[name][1][0], outputs=outputs, time=fit.data.time
                ),
                caption="The unknown term along the fitted trajectory"
                + (f" {fit.data.groups[0]}." if len(fit.data.groups) > 1 else "."),
            )
        )
        pictures += _surfaces(name, term, recovered.terms[name], x, outputs)
    return tuple(pictures)


def residual_pictures(data: Trajectories, paths: Paths) -> tuple[Picture, ...]:
    """Measured minus modelled values of the first trajectories."""
    several = len(data.groups) > 1
    return tuple(
        Picture(
            name=f"residuals_{g + 1}" if several else "residuals",
            figure=plot.residuals(data.ts[g].numpy(), paths.residuals[g], states=data.states, time=data.time),
            caption="Left: over time. Right: quantiles against those of a normal distribution."
            + (f" Trajectory {group}." if several else ""),
        )
        for g, group in enumerate(data.groups[: MAX_GROUPS // 2])
    )


def history_picture(fit: Fit) -> Picture:
    """The loss of every replicate over the phases of the fit."""
    phases: list[tuple[str, list[np.ndarray]]] = []
    for name, row in zip(fit.history.phase, fit.history.loss.numpy(), strict=True):
        if not phases or phases[-1][0] != name:
            phases.append((name, []))
        phases[-1][1].append(row)
    figure = plot.history([(name, np.stack(rows)) for name, rows in phases], best=fit.best)
    return Picture(name="history", figure=figure, caption="Loss of every replicate; each phase has a loss of its own.")


def _record(fit: Fit, model: UDE, ts: torch.Tensor, ys: torch.Tensor) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Inputs and outputs of every term, each of shape `(groups, times, columns)`."""
    signal = None if fit.signal is None else fit.signal(ts.T).transpose(0, 1)
    with torch.no_grad():
        record = model.record(ts, ys, signal)
    return {name: (x.numpy(), value.numpy()) for name, (x, value) in record.items()}


def _surfaces(name: str, term: Term, other: torch.nn.Module, x: np.ndarray, outputs: list[str]) -> list[Picture]:
    visited = x.reshape(-1, x.shape[-1])
    visited = visited[np.isfinite(visited).all(1)]
    if not len(visited) or visited.shape[1] > 2:
        return []
    axes = [np.linspace(*_widened(column), 60) for column in visited.T]
    grid = torch.from_numpy(np.stack(np.meshgrid(*axes), axis=-1)).to(term.input_shift)
    with torch.no_grad():
        learned, found = term(grid).numpy(), other(grid).numpy()
    pictures = []
    for i, output in enumerate(outputs):
        values = (learned[..., i], found[..., i])
        if len(axes) == 1:
            figure = plot.term_curve(axes[0], *values, name=term.inputs[0], output=output, visited=visited[::8, 0])
        else:
            first, second = term.inputs
            figure = plot.term_map(
                axes[0], axes[1], *values, names=(first, second), output=output, visited=visited[::4]
            )
        caption = f"{sentence(output)} over {' and '.join(term.inputs)}; marks are states along the trajectories."
        pictures.append(Picture(name=f"term_{name}_{i + 1}", figure=figure, caption=caption))
    return pictures


def _widened(column: np.ndarray) -> tuple[float, float]:
    low, high = float(column.min()), float(column.max())
    margin = 0.05 * (high - low or abs(high) or 1.0)
    return low - margin, high + margin
