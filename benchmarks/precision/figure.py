"""Work-precision diagrams."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.precision.measure import Point

STYLES = {
    "ude": "-",
    "ude (compiled)": "-.",
    "ude (loop)": (0, (5, 1, 1, 1, 1, 1)),
    "SciPy": "--",
    "diffrax (jit)": ":",
}


def draw(points: Sequence[Point], folder: Path) -> None:
    """Write one picture for each kind of problem: error against time, a line for each method."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    for is_stiff, name in ((False, "precision_nonstiff.svg"), (True, "precision_stiff.svg")):
        chosen = [point for point in points if point.is_stiff == is_stiff]
        problems = list(dict.fromkeys(point.problem for point in chosen))
        if not problems:
            continue
        labels = list(dict.fromkeys((point.method, point.library) for point in chosen))
        colours = {label: plt.get_cmap("tab20")(i % 20) for i, label in enumerate(labels)}
        columns = min(len(problems), 2 if len(problems) == 4 else 3)
        rows = -(-len(problems) // columns)
        figure, axes = plt.subplots(
            rows, columns, figsize=(4.2 * columns, 3.6 * rows), squeeze=False, layout="constrained"
        )
        for axis, problem in zip(axes.flat, problems, strict=False):
            for method, library in labels:
                line = [
                    (point.error, point.seconds)
                    for point in chosen
                    if (point.problem, point.method, point.library) == (problem, method, library)
                    and 0 < point.error < 1
                ]
                if line:
                    axis.loglog(
                        *zip(*line, strict=True),
                        linestyle=STYLES[library],
                        marker="o",
                        markersize=3,
                        linewidth=1.2,
                        color=colours[method, library],
                        label=f"{method} ({library})",
                    )
            axis.set_title(problem, fontsize=10)
            axis.invert_xaxis()
            axis.grid(alpha=0.3)
        for axis in axes[-1]:
            axis.set_xlabel("relative error at the end")
        for axis in axes[:, 0]:
            axis.set_ylabel("seconds")
        for axis in axes.flat[len(problems) :]:
            axis.axis("off")
        handles, names = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", fontsize=8)
        figure.savefig(folder / name)
        plt.close(figure)
