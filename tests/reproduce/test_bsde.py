import pytest

from ude.bsde import suite
from ude.reproduce import REPRODUCTIONS, Settings
from ude.reproduce.bsde import HJB_PLANS, SUITE_PLANS


def smoke(name):
    return REPRODUCTIONS[name].run(REPRODUCTIONS[name].budgets["smoke"])


def test_every_equation_of_the_suite_has_a_target():
    assert list(SUITE_PLANS) == [e.name for e in suite()]
    assert {d: (plan.error, plan.seconds) for d, plan in HJB_PLANS.items()} == {
        10: (0.005, None),
        100: (0.003, 15.0),
        1000: (0.005, 120.0),
    }


def test_a_smoke_run_prints_values_errors_and_times():
    outcome = smoke("hjb")
    assert [line.quantity for line in outcome.lines][:4] == [
        "d = 10: u(0, x0)",
        "d = 10: relative error",
        "d = 10: standard error, relative",
        "d = 10: processor time, s",
    ]
    error = outcome.lines[5]
    # Fresh paths are right in the mean even with a gradient that is hardly trained.
    assert error.paper == "0.17 % in 330 s"
    assert 0 < error.ours[0] < 0.02
    assert "exact 4.590162" in outcome.table()
    assert outcome.notes[0].startswith("A smoke run")
    assert any("relative residual" in note for note in outcome.notes)


def test_the_suite_has_a_smoke_run():
    outcome = smoke("bsde-suite")
    errors = [line for line in outcome.lines if "relative error" in line.quantity]
    assert len(errors) == 8
    assert all(line.ours[0] < 0.2 for line in errors)


@pytest.mark.slow
def test_hamilton_jacobi_bellman_meets_its_targets():
    outcome = REPRODUCTIONS["hjb"].run(Settings(seeds=1, budget="cpu"))
    for line in outcome.lines:
        if "relative error" in line.quantity:
            assert line.passed, line
