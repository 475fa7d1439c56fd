import math

import pytest

from ude.reproduce import REPRODUCTIONS, Line, Outcome
from ude.reproduce.reproduction import middle


def test_a_run_without_the_quantity_cannot_meet_a_target():
    for values in ([math.nan, 1.0, 2.0], [2.0, math.nan, 1.0], [1.0, 2.0, math.nan]):
        assert middle(values) == 2.0
        assert middle([math.nan, *values]) == math.inf
        assert not Line.at_most("q", "", [math.nan, *values], 5.0).passed


@pytest.mark.parametrize(("ours", "passed"), [([0.1, 0.2, 9.0], True), ([0.1, 0.4, 0.5], False)])
def test_the_median_decides(ours, passed):
    assert Line.at_most("q", "", ours, 0.3).passed is passed


def test_a_tie_of_yes_and_no_is_not_most():
    assert not Line.most("q", "", [True, False]).passed
    assert Line.most("q", "", [True, True, False]).passed


def test_the_summary_says_how_many_runs_have_the_quantity():
    assert Line(quantity="q", paper="", ours=[3.0, math.nan, 1.0, 2.0]).summary == "2 (1 to 3), 3 of 4 runs"
    assert Line(quantity="q", paper="", ours=[math.nan]).summary == "none"
    assert Line(quantity="q", paper="", ours=[True, False]).summary == "1 of 2"


def test_a_missed_target_is_printed_as_missed():
    table = Outcome(lines=[Line.at_most("error", "", [2.0], 1.0)], seconds=0.0).table()
    assert "MISSED" in table.splitlines()[2]


def test_every_reproduction_says_what_and_from_where():
    assert set(REPRODUCTIONS) == {
        "lv1",
        "lv2",
        "lv-recovery",
        "hudson",
        "seir",
        "t1",
        "t2",
        "mnist-node",
        "hjb",
        "bsde-suite",
    }
    assert all(r.title and r.source for r in REPRODUCTIONS.values())
