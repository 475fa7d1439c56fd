"""Figures: functions of plain arrays that return a `matplotlib.figure.Figure` and leave no global state."""

from ude.plot.quality import candidates, coefficients, history, residuals
from ude.plot.style import to_png, to_svg
from ude.plot.term import term_along_trajectory, term_curve, term_map
from ude.plot.trajectory import data_and_fit, extrapolation

__all__ = [
    "candidates",
    "coefficients",
    "data_and_fit",
    "extrapolation",
    "history",
    "residuals",
    "term_along_trajectory",
    "term_curve",
    "term_map",
    "to_png",
    "to_svg",
]
