"""The engine that chooses by itself."""

import logging

import pytest
import torch

import ude
from ude import Auto, ODEProblem, solve
from ude.solve import auto


def problem(field):
    return ODEProblem(field, torch.ones(4, 2, dtype=torch.float64), (0.0, 1.0), batched=True)


def reasons(caplog):
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("Engine")]


def test_a_handful_of_steps_is_never_compiled_and_the_reason_is_told(caplog):
    def field(t, y):
        return -y

    with caplog.at_level(logging.INFO, logger="ude"):
        for _ in range(3):
            solve(problem(field), engine=Auto(explain=True))
    said = reasons(caplog)
    assert len(said) == 3
    assert said[0] == "Engine eager: 0 steps with this vector field so far; compiling pays after 3000."
    assert "eager" in said[2]
    assert said[2] != said[0]  # steps are counted


@pytest.mark.slow
def test_many_steps_are_compiled_with_the_same_result(monkeypatch, caplog):
    monkeypatch.setattr(auto, "HANDFUL", 5)

    def field(t, y):
        return -y.flip(-1) * torch.cos(t)

    with torch.no_grad(), caplog.at_level(logging.DEBUG, logger="ude"):
        first = solve(problem(field), engine="auto", save_at=[1.0])
        second = solve(problem(field), engine="auto", save_at=[1.0])
    assert [line.split(":")[0] for line in reasons(caplog)] == ["Engine eager", "Engine loop"]
    torch.testing.assert_close(first.ys, second.ys, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_what_the_compiler_refuses_stays_eager(monkeypatch, caplog):
    monkeypatch.setattr(auto, "HANDFUL", 0)

    def field(t, y):
        return -y * float(y.abs().max() > -1.0)  # looks at numbers, which cannot be traced

    with torch.no_grad(), caplog.at_level(logging.WARNING, logger="ude"):
        ys = solve(problem(field), engine="auto", save_at=[1.0]).ys
        solve(problem(field), engine="auto", save_at=[1.0])
    torch.testing.assert_close(ys[0], torch.full_like(ys[0], 0.36787944), rtol=1e-4, atol=0)
    warnings = [record for record in caplog.records if "Solving with the eager engine" in record.getMessage()]
    assert len(warnings) == 1


def test_events_and_implicit_methods_stay_eager(monkeypatch, caplog):
    monkeypatch.setattr(auto, "HANDFUL", 0)
    with caplog.at_level(logging.DEBUG, logger="ude"):
        solve(problem(lambda t, y: -y), engine="auto", events=[ude.PresetTimes([0.5])])
        solve(problem(lambda t, y: -y), ude.Rodas5P(), engine="auto")
    assert "events" in reasons(caplog)[0]
    assert "not an explicit method" in reasons(caplog)[1]
