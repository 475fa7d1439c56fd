"""Times at which steps end, and limits on their length."""

import math

import pytest
import torch

import ude
from ude import ODEProblem, solve
from ude.solve import PID


def decay(t, y):
    return -y


def ones(*shape):
    return torch.ones(*shape, dtype=torch.float64)


@pytest.mark.parametrize("engine", ["eager", ude.Compiled()], ids=["eager", "compiled"])
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 2.0), (2.0, 0.0)])
def test_steps_end_exactly_at_stops(engine, t0, t1):
    stops = torch.tensor([0.3, 1.7, 1.0], dtype=torch.float64)
    solution = solve(ODEProblem(decay, ones(1), (t0, t1)), stop_at=stops, engine=engine)
    for stop in stops:
        assert bool((solution.ts == stop).any())
    exact = torch.exp(-(solution.ts - t0))
    torch.testing.assert_close(solution.ys[:, 0], exact, rtol=1e-4, atol=0)


def test_a_stop_does_not_shorten_the_steps_after_it():
    problem = ODEProblem(decay, ones(1), (0.0, 10.0))
    free = solve(problem, ude.Tsit5(), rtol=1e-8, atol=1e-8)
    stopped = solve(problem, ude.Tsit5(), rtol=1e-8, atol=1e-8, stop_at=[5.0])
    assert int(stopped.stats.accepted) <= int(free.stats.accepted) + 2


def test_samples_have_their_own_stops_and_ignore_those_outside():
    stops = torch.tensor([[0.5, 0.25], [5.0, 0.75]], dtype=torch.float64)
    problem = ODEProblem(decay, ones(2, 1), (0.0, torch.tensor([1.0, 2.0], dtype=torch.float64)), batched=True)
    solution = solve(problem, stop_at=stops)
    assert bool((solution.ts[:, 0] == 0.5).any())
    assert bool((solution.ts[:, 1] == 0.25).any())
    assert bool((solution.ts[:, 1] == 0.75).any())
    torch.testing.assert_close(solution.ts[-1], torch.tensor([1.0, 2.0], dtype=torch.float64))


def test_a_jump_of_the_field_that_is_announced_costs_little():
    def switched(t, y):
        return torch.where(t < 1.0, -y, 5.0 - y)

    problem = ODEProblem(switched, ones(1), (0.0, 2.0))
    blind = solve(problem, rtol=1e-8, atol=1e-8)
    told = solve(problem, rtol=1e-8, atol=1e-8, events=[ude.PresetTimes([1.0])], save_at=[2.0])
    assert int(told.stats.rejected) <= 1
    assert 4 * int(told.stats.nfe) < int(blind.stats.nfe)
    exact = 5.0 + (math.exp(-1.0) - 5.0) * math.exp(-1.0)
    assert float(told.ys[0, 0]) == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("before", [lambda t: t < 1.0, lambda t: t <= 1.0], ids=["<", "<="])
@pytest.mark.parametrize("t_span", [(0.0, 2.0), (2.0, 0.0)], ids=["forwards", "backwards"])
@pytest.mark.parametrize("method", [ude.Tsit5(), ude.RK4()], ids=str)
def test_an_announced_jump_is_met_on_the_right_side_in_both_directions(before, t_span, method):
    problem = ODEProblem(lambda t, y: torch.where(before(t), 1.0, 3.0) + 0 * y, ones(1), t_span)
    options = {"dt": 0.25} if method == ude.RK4() else {}
    solution = solve(problem, method, events=[ude.PresetTimes([1.0])], save_at=[t_span[1]], **options)
    # Both methods are exact for each half, unless a stage sees the other one.
    expected = 1.0 + (4.0 if t_span[1] > t_span[0] else -4.0)
    assert float(solution.ys[0, 0]) == pytest.approx(expected, abs=1e-12)
    assert int(solution.stats.rejected) == 0


def test_no_step_is_longer_than_max_step():
    solution = solve(ODEProblem(decay, ones(1), (0.0, 10.0)), max_step=0.5)
    # A last step up to 1 % longer is the loop's rule.
    assert float(solution.steps.dt.max()) <= 0.505


def test_a_step_that_would_have_to_be_shorter_than_min_step_fails_or_is_accepted_on_request():
    def fast(t, y):
        return -1000.0 * (y - torch.cos(t))

    problem = ODEProblem(fast, ones(1) * 3, (0.0, 1.0))
    options = {"rtol": 1e-8, "atol": 1e-8, "min_step": 1e-3}
    with pytest.raises(ude.SolveError, match="step became too small"):
        solve(problem, **options)
    loose = solve(problem, controller=PID(accepts_shortest=True), **options)
    assert bool(loose.success)
    assert float(loose.steps.error.max()) > 1.0  # reported, not hidden
    assert float(loose.steps.dt[:-1].min()) >= 1e-3


@pytest.mark.parametrize(
    "limits", [{"min_step": -1.0}, {"max_step": 0.0}, {"min_step": 2.0, "max_step": 1.0}, {"max_step": math.nan}]
)
def test_limits_that_contradict_each_other_are_refused(limits):
    with pytest.raises(ValueError, match="min_step <= max_step"):
        solve(ODEProblem(decay, ones(1), (0.0, 1.0)), **limits)


def test_gradients_pass_through_stops():
    def final(rate):
        problem = ODEProblem(lambda t, y: -rate * y, ones(1), (0.0, 1.0))
        return solve(problem, stop_at=[0.25, 0.5], rtol=1e-9, atol=1e-9, save_at=[0.5, 1.0]).ys

    assert torch.autograd.gradcheck(final, torch.tensor(0.7, dtype=torch.float64, requires_grad=True), rtol=1e-6)


def test_a_last_step_just_longer_than_the_shortest_is_taken_whatever_its_error():
    # After nine shortest steps 1.005 of them are left, which one step makes: it used to be tried again for ever.
    shortest = 1.0 / 10.005
    problem = ODEProblem(lambda t, y: -50.0 * torch.sin(40.0 * t) * y, ones(1), (0.0, 1.0))
    controller = PID(accepts_shortest=True)
    solution = solve(
        problem,
        ude.Tsit5(),
        controller=controller,
        dt=shortest,
        min_step=shortest,
        rtol=1e-12,
        atol=1e-12,
        max_steps=50,
    )
    assert int(solution.stats.accepted) == 10
