"""Figures draw what they were given, whatever its names, and leave no global state."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from ude import plot

TS = np.linspace(0, 4, 9)
YS = np.stack([np.cos(TS), np.sin(TS)], 1)
HOSTILE = ["<script>alert(1)</script>", "a$b^", "$\\frac{", "\\", "x" * 300, "новая\n中", ""]


def drawn(figure):
    return [line.get_xydata() for ax in figure.axes for line in ax.lines]


def contains(figure, xy):
    return any(line.shape == xy.shape and np.allclose(line, xy, equal_nan=True) for line in drawn(figure))


def figures(names):
    a, b = names
    curve = {a: (TS, YS), b: (TS * 2, YS)}
    yield plot.data_and_fit(TS, YS, curve, states=names, time=a, heading=b)
    yield plot.extrapolation(TS, YS, curve, states=names, time=a)
    yield plot.residuals(TS, YS, states=names, time=a)
    yield plot.term_along_trajectory(TS, YS, YS, outputs=names, time=b)
    yield plot.term_curve(TS, YS[:, 0], None, name=a, output=b, visited=TS)
    yield plot.term_map(TS, TS, np.outer(TS, TS), np.outer(TS, TS) + 1, names=(a, b), output=a, visited=YS)
    yield plot.coefficients(names, [1.0, -2.0], [0.5, -3.0], [1.5, 1.0])
    yield plot.history([(a, np.ones((5, 3))), (b, np.ones(4))], best=1)


def test_measurements_and_curves_are_drawn_at_their_values():
    figure = plot.data_and_fit(TS, YS, {"model": (TS * 2, YS + 1)}, states=["x", "y"], time="day")
    for i in range(2):
        assert contains(figure, np.stack([TS, YS[:, i]], 1))
        assert contains(figure, np.stack([TS * 2, YS[:, i] + 1], 1))
    assert figure.axes[-1].get_xlabel() == "day"


def test_a_model_that_runs_away_does_not_flatten_the_measurements():
    figure = plot.extrapolation(TS, YS, {"model": (TS, np.exp(30 * YS))}, states=["x", "y"])
    assert all(ax.get_ylim()[1] < 10 for ax in figure.axes)


def test_the_chosen_candidate_is_marked_at_its_distance_from_the_best():
    figure = plot.candidates([1, 2, 3], [5.0, -10.0, np.inf], chosen=0)
    assert contains(figure, np.array([[1.0, 15.0], [2.0, 0.0]]))
    assert contains(figure, np.array([[1.0, 15.0]]))


def test_candidates_that_all_failed_are_an_empty_panel():
    assert plot.to_svg(plot.candidates([1, 2], [np.nan, np.inf], chosen=1))


def test_the_interval_of_a_negative_coefficient_is_relative_to_its_estimate():
    figure = plot.coefficients(["k"], [-2.0], [-3.0], [-1.0])
    assert contains(figure, np.array([[50.0, 0.0], [150.0, 0.0]]))


def test_missing_values_leave_gaps():
    holes = YS.copy()
    holes[::2, 1] = np.nan
    assert plot.to_svg(plot.residuals(TS, holes, states=["x", "y"]))
    holes[:, 0] = np.nan
    assert plot.to_svg(plot.data_and_fit(TS, holes, {}, states=["x", "y"]))


@pytest.mark.parametrize("names", list(zip(HOSTILE[::2], [*HOSTILE[1::2], "y"], strict=True)), ids=range(4))
def test_any_name_can_be_drawn(names):
    for figure in figures(names):
        assert isinstance(figure, Figure)
        assert "<script" not in plot.to_svg(figure)


def test_the_same_figure_is_the_same_picture():
    first, second = (plot.to_svg(plot.data_and_fit(TS, YS, {}, states=["x", "y"])) for _ in range(2))
    assert first == second


def test_many_states_share_two_columns():
    figure = plot.data_and_fit(TS, np.tile(YS, (1, 4)), {}, states=[f"y{i}" for i in range(7)] + ["z"])
    assert len({ax.get_position().x0 for ax in figure.axes if ax.get_visible()}) == 2


def test_drawing_never_loads_pyplot():
    code = "import sys; from ude import plot; plot.to_png(plot.data_and_fit([0, 1], [[0], [1]], {}, states=['x'])); "
    code += "sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
