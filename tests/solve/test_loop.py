"""The loop of `torch.while_loop`, which takes what generated code does not, against the eager engine."""

import sys

import pytest
import torch

import ude
from ude import Loop, ODEProblem, solve


@pytest.fixture(autouse=True)
def _without_generated_code(monkeypatch):
    monkeypatch.setattr(sys.modules["ude.solve.loop"], "begin_natively", lambda task, t, y: None)


def oscillator(t, y):
    x, v = y.unbind(-1)
    return torch.stack([v, 2.0 * (1.0 - x * x) * v - x + 0.0 * t.squeeze(-1)], dim=-1)


def starts(batch):
    return torch.stack(
        [torch.linspace(-2, 2, batch, dtype=torch.float64), torch.linspace(0, 1, batch, dtype=torch.float64)], dim=-1
    )


def problem(t_span=(0.0, 5.0)):
    return ODEProblem(oscillator, starts(6), t_span, batched=True)


# Few stages are compiled sooner; whatever the tolerance, the engines take the same steps.
TIGHT = {"method": ude.BS3(), "rtol": 1e-6, "atol": 1e-6}


def assert_alike(ours, theirs):
    # Rounding of the error estimate moves the ends of steps by about 1e-6 of a step, but not the solution.
    torch.testing.assert_close(ours.ys[-1], theirs.ys[-1], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(ours.ts, theirs.ts, rtol=1e-6, atol=1e-7)
    assert ours.stats.accepted.tolist() == theirs.stats.accepted.tolist()
    assert ours.stats.nfe.tolist() == theirs.stats.nfe.tolist()
    assert ours.status.tolist() == theirs.status.tolist()
    torch.testing.assert_close(ours.steps.dt, theirs.steps.dt, rtol=1e-4, atol=1e-9)


# One function and shape throughout: it is compiled once, with and without states.


def test_states_steps_and_dense_output_are_those_of_the_eager_engine():
    with torch.no_grad():
        for options in ({}, {"save_at": torch.linspace(0, 5, 11, dtype=torch.float64)}, {"stop_at": [1.0, 2.5]}):
            ours, theirs = (solve(problem(), engine=engine, **TIGHT, **options) for engine in ("loop", "eager"))
            assert_alike(ours, theirs)
            times = torch.tensor([0.3, 4.9], dtype=torch.float64)
            torch.testing.assert_close(ours(times), theirs(times), rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_samples_with_their_own_intervals_and_a_small_capacity_agree():
    ends = torch.linspace(1.0, 5.0, 6, dtype=torch.float64)
    with torch.no_grad():
        ours = solve(problem((0.0, ends)), engine=Loop(capacity=7), **TIGHT)
        theirs = solve(problem((0.0, ends)), **TIGHT)
    assert len(ours.steps.t) > 14  # several calls of the loop
    assert_alike(ours, theirs)


@pytest.mark.slow
def test_decreasing_time_and_a_limit_on_attempts_agree():
    with torch.no_grad():
        ours, theirs = (solve(problem((1.0, 0.0)), engine=engine, **TIGHT) for engine in ("loop", "eager"))
        assert_alike(ours, theirs)
        few = solve(problem(), engine="loop", max_steps=5, throw=False, **TIGHT)
    assert len(few.steps.t) == 5
    assert bool((few.status == ude.Status.MAX_STEPS).all())


def test_many_times_are_interpolated_by_a_compiled_function():
    times = torch.linspace(0, 5, 400, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = (solve(problem(), save_at=times, engine=engine, **TIGHT) for engine in ("loop", "eager"))
    torch.testing.assert_close(ours.ys, theirs.ys, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_a_solve_with_a_gradient_has_the_gradient_of_the_eager_engine():
    def gradient(engine):
        y0 = starts(6).requires_grad_()
        ys = solve(ODEProblem(oscillator, y0, (0.0, 2.0), batched=True), engine=engine, save_at=[2.0], **TIGHT).ys
        return torch.autograd.grad(ys.square().sum(), y0)[0]

    torch.testing.assert_close(gradient("loop"), gradient("eager"), rtol=1e-9, atol=1e-11)


def test_a_capacity_below_one_is_refused():
    with pytest.raises(ValueError, match="`capacity` must be an integer of at least 1"):
        Loop(capacity=0)
