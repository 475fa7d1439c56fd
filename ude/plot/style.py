"""One look for every figure: colours, panels, legends, and how a figure becomes a file."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array: TypeAlias = np.ndarray | Sequence[Any]
"""An array, or nested sequences of numbers."""

# Paul Tol's "vibrant" scheme: told apart with every common colour blindness, and in grey.
BLUE, ORANGE, TEAL, RED, MAGENTA, CYAN, GREY = (
    "#0077bb",
    "#ee7733",
    "#009988",
    "#cc3311",
    "#ee3377",
    "#33bbee",
    "#bbbbbb",
)
INK, FAINT, GRID = "#222222", "#6b6b6b", "#e6e6e6"
PALETTE = (BLUE, ORANGE, TEAL, MAGENTA, CYAN, RED)
WIDTH = 7.0
"""Width of a figure in inches; text is 9-10 points, so it is drawn at about this size in a report."""


def panels(
    rows: int, columns: int, *, height: float, share_x: bool = False, share_y: bool = False
) -> tuple[Figure, Any]:
    """Return a figure and its `(rows, columns)` array of styled axes; `height` in inches is of one row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height * rows + 0.55), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=share_y)
    for ax in axes.flat:
        style(ax)
    return figure, axes


def style(ax: Axes) -> None:
    """Draw an axes with two thin spines, a faint grid behind the data, and small ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.grid(visible=True, color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(colors=FAINT, labelcolor=INK, labelsize=9, length=3)


def title(ax: Axes, text: str) -> None:
    """Put a panel's name above its upper left corner."""
    ax.set_title(plain(text), loc="left", fontsize=10, fontweight="bold", color=INK)


def time_axis(ax: Axes, name: str, ts: np.ndarray) -> None:
    """Name the time axis; whole numbers (years, days) are marked by whole numbers."""
    ax.set_xlabel(plain(name), fontsize=9.5)
    if ts.size and np.ptp(ts) >= 4 and bool((ts == np.round(ts)).all()):
        whole_numbers(ax)


def whole_numbers(ax: Axes) -> None:
    """Mark the horizontal axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True))


def legend(figure: Figure, ax: Axes) -> None:
    """Put the entries of one panel above the figure, once for all panels."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        # About 90 characters fit beside each other at this size.
        columns = len(handles) if sum(len(label) + 8 for label in labels) < 90 else 2
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=9)


def plain(text: str, *, longest: int = 48) -> str:
    """Return `text` with nothing that matplotlib would read as mathematics, on one line, not too long."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    short = printable if len(printable) <= longest else printable[: longest - 1] + "…"
    return short.replace("\\", "\\\\").replace("$", r"\$") if "$" in short else short


def grid_shape(count: int) -> tuple[int, int]:
    """Rows and columns for `count` panels: one column up to three, then two."""
    columns = 1 if count <= 3 else 2
    return math.ceil(count / columns), columns


def to_svg(figure: Figure) -> str:
    """Return the figure as the text of an SVG picture, the same for the same figure."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "ude", "svg.fonttype": "path"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    _keep_layout(figure)
    return buffer.getvalue()


def to_png(figure: Figure, *, dpi: int = 150) -> bytes:
    """Return the figure as the bytes of a PNG picture."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    _keep_layout(figure)
    return buffer.getvalue()


def _keep_layout(figure: Figure) -> None:
    """Do not work out the places of panels and labels again: that is half of the time of drawing."""
    figure.set_layout_engine("none")
