"""Events: their times, what they do, and their gradients, against closed forms."""

import math

import pytest
import torch

import ude
from ude import ODEProblem, solve
from ude.solve import (
    Checkpointed,
    ContinuousEvent,
    DiscreteEvent,
    ManifoldProjection,
    Periodic,
    PositiveDomain,
    PresetTimes,
    SteadyState,
)

GRAVITY = 9.81


def falling(t, y):
    return torch.stack([y[..., 1], torch.full_like(y[..., 0], -GRAVITY)], dim=-1)


def bounce(restitution):
    return ContinuousEvent(
        condition=lambda t, y: y[..., 0],
        affect=lambda t, y: torch.stack([torch.zeros_like(y[..., 0]), -restitution * y[..., 1]], dim=-1),
        direction=-1,
    )


def bounce_times(height, restitution, count):
    first = torch.sqrt(2 * height / GRAVITY)
    flights = 2 * first * restitution ** torch.arange(1, count, dtype=first.dtype)
    return first + torch.cat([torch.zeros(1, dtype=first.dtype), flights.cumsum(0)])


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("method", [ude.Tsit5(), ude.Vern7(), ude.BS3(), ude.Dopri8()], ids=str)
def test_a_ball_bounces_at_the_times_of_the_closed_form(method):
    problem = ODEProblem(falling, double(1.0, 0.0), (0.0, 3.0))
    solution = solve(problem, method, events=[bounce(0.8)], rtol=1e-9, atol=1e-9)
    expected = bounce_times(torch.tensor(1.0, dtype=torch.float64), 0.8, 6)
    # The flight is a parabola, which all these methods integrate exactly: only rounding is left.
    torch.testing.assert_close(solution.events.ts, expected, rtol=0, atol=1e-11)
    assert solution.events.which.tolist() == [0] * 6
    torch.testing.assert_close(solution.events.after[:, 1], -0.8 * solution.events.before[:, 1])


def test_states_between_bounces_are_saved_where_they_belong():
    problem = ODEProblem(falling, double(1.0, 0.0), (0.0, 3.0))
    solution = solve(problem, events=[bounce(0.8)], save_at=torch.linspace(0, 3, 31))
    bounces = bounce_times(torch.tensor(1.0, dtype=torch.float64), 0.8, 7)
    for t, y in zip(solution.ts[1:].tolist(), solution.ys[1:], strict=True):
        passed = int((bounces < t).sum())
        if passed == 0:
            expected = 1.0 - GRAVITY * t**2 / 2
        else:
            since = t - float(bounces[passed - 1])
            speed = math.sqrt(2 * GRAVITY) * 0.8**passed
            expected = speed * since - GRAVITY * since**2 / 2
        assert float(y[0]) == pytest.approx(expected, abs=1e-10)
    assert float(solution(2.5)[0]) == pytest.approx(float(solution.ys[25][0]), abs=1e-10)


@pytest.mark.parametrize("adjoint", [ude.Direct(), Checkpointed()], ids=str)
def test_gradients_after_bounces_agree_with_finite_differences(adjoint):
    def states(restitution, height):
        problem = ODEProblem(falling, torch.stack([height, torch.zeros_like(height)]), (0.0, 3.0))
        return solve(problem, events=[bounce(restitution)], save_at=[1.1, 3.0], adjoint=adjoint).ys

    inputs = (torch.tensor(0.8, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    assert torch.autograd.gradcheck(states, tuple(x.requires_grad_() for x in inputs), rtol=1e-6, atol=1e-7)


def test_times_of_events_have_the_gradient_of_the_closed_form():
    height = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    restitution = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    start = torch.stack([height, torch.zeros_like(height)])
    times = solve(ODEProblem(falling, start, (0.0, 3.0)), events=[bounce(restitution)]).events.ts
    expected = bounce_times(height, restitution, 6)
    for ours, theirs in zip(times, expected, strict=True):
        got = torch.autograd.grad(ours, [height, restitution], retain_graph=True, allow_unused=True)
        want = torch.autograd.grad(theirs, [height, restitution], retain_graph=True, allow_unused=True)
        for a, b in zip(got, want, strict=True):
            assert float(0.0 if a is None else a) == pytest.approx(float(0.0 if b is None else b), rel=1e-8, abs=1e-10)


def test_a_threshold_in_a_closure_and_a_rate_in_p_get_gradients():
    # y = 2 exp(-k t) meets c at t = log(2 / c) / k.
    c = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    k = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    event = ContinuousEvent(condition=lambda t, y, p: y[0] - c, terminate=True)
    problem = ODEProblem(lambda t, y, p: -p * y, double(2.0), (0.0, 10.0), p=k)
    solution = solve(problem, events=[event], rtol=1e-10, atol=1e-12)
    assert int(solution.status) == ude.Status.TERMINATED
    assert bool(solution.success)
    expected = torch.log(2 / c) / k
    torch.testing.assert_close(solution.events.ts[0], expected, rtol=1e-9, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(solution.events.ts[0], [c, k]), torch.autograd.grad(expected, [c, k]), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=0)


def test_the_state_at_an_event_that_ends_the_solve_has_its_full_gradient():
    # y' = k, ended where y = t^2 + c: y = k t*, t* = (k + sqrt(k^2 - 4 c)) / 2 from y(0) = 0 for c < 0.
    k = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    c = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    event = ContinuousEvent(condition=lambda t, y: y[0] - t**2 - c, terminate=True)
    solution = solve(ODEProblem(lambda t, y: k * torch.ones_like(y), double(0.0), (0.0, 9.0)), events=[event])
    time = (k + torch.sqrt(k**2 - 4 * c)) / 2
    torch.testing.assert_close(solution.events.before[0, 0], k * time)
    ours = torch.autograd.grad(solution.events.before[0, 0], [k, c])
    theirs = torch.autograd.grad(k * time, [k, c])
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), rtol=1e-9, atol=0)


def test_every_sample_of_a_batch_has_its_own_events():
    heights = torch.tensor([0.5, 1.0, 4.0, 100.0], dtype=torch.float64)
    start = torch.stack([heights, torch.zeros_like(heights)], dim=-1)
    problem = ODEProblem(falling, start, (0.0, 2.0), batched=True)
    solution = solve(problem, events=[bounce(0.8)], save_at=[2.0])
    for i, height in enumerate(heights):
        alone = solve(ODEProblem(falling, start[i], (0.0, 2.0)), events=[bounce(0.8)], save_at=[2.0])
        count = len(alone.events.ts)
        torch.testing.assert_close(solution.events.ts[:count, i], alone.events.ts, rtol=0, atol=1e-11)
        assert bool((solution.events.which[count:, i] == -1).all())
        assert bool(solution.events.ts[count:, i].isnan().all())
        torch.testing.assert_close(solution.ys[0, i], alone.ys[0], rtol=0, atol=1e-10)
        expected = bounce_times(height, 0.8, count) if count else double()
        torch.testing.assert_close(alone.events.ts, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("direction", "expected"), [(0, [0.5, 1.5, 2.5]), (1, [1.5]), (-1, [0.5, 2.5])])
def test_only_crossings_in_the_wanted_direction_count(direction, expected):
    event = ContinuousEvent(condition=lambda t, y: torch.cos(torch.pi * t), direction=direction)
    solution = solve(ODEProblem(lambda t, y: -y, double(1.0), (0.0, 3.0)), events=[event], max_step=0.5)
    torch.testing.assert_close(solution.events.ts, double(*expected), rtol=0, atol=1e-10)


def test_directions_follow_time_when_it_runs_backwards():
    event = ContinuousEvent(condition=lambda t, y: t - 0.3, direction=-1)
    solution = solve(ODEProblem(lambda t, y: -y, double(1.0), (1.0, 0.0)), events=[event])
    torch.testing.assert_close(solution.events.ts, double(0.3), rtol=0, atol=1e-12)


def test_a_pair_of_zeros_inside_one_step_is_seen():
    # Negative for 0.4 < t < 0.6 only; the step of y' = 0 covers the whole interval.
    event = ContinuousEvent(condition=lambda t, y: (t - 0.4) * (t - 0.6))
    solution = solve(ODEProblem(lambda t, y: 0 * y, double(1.0), (0.0, 1.0)), events=[event], dt=1.0)
    torch.testing.assert_close(solution.events.ts, double(0.4, 0.6), rtol=0, atol=1e-12)


def test_an_event_that_starts_at_zero_waits_until_it_has_left_zero():
    event = ContinuousEvent(condition=lambda t, y: y[0])
    problem = ODEProblem(lambda t, y: torch.stack([y[1], -y[0]]), double(0.0, 1.0), (0.0, 4.0))
    solution = solve(problem, events=[event], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(solution.events.ts, double(math.pi), rtol=0, atol=1e-8)


def test_two_events_at_the_same_time_both_happen():
    events = [
        ContinuousEvent(condition=lambda t, y: t - 0.5, affect=lambda t, y: y + 1),
        ContinuousEvent(condition=lambda t, y: 0.5 - t, affect=lambda t, y: 2 * y),
    ]
    solution = solve(ODEProblem(lambda t, y: 0 * y, double(1.0), (0.0, 1.0)), events=events, save_at=[1.0])
    assert sorted(solution.events.which.tolist()) == [0, 1]
    torch.testing.assert_close(solution.events.ts, double(0.5, 0.5), rtol=0, atol=1e-12)
    assert float(solution.ys[0, 0]) in (3.0, 4.0)


def test_resetting_a_variable_makes_an_oscillator():
    # Integrate and fire: y' = 1.5 - y, reset from 1 to 0, with period log(3).
    event = ContinuousEvent(condition=lambda t, y: y[0] - 1.0, affect=lambda t, y: 0 * y)
    problem = ODEProblem(lambda t, y: 1.5 - y, double(0.0), (0.0, 10.0))
    solution = solve(problem, events=[event], rtol=1e-10, atol=1e-12)
    period = math.log(3.0)
    expected = double(*[period * k for k in range(1, int(10 / period) + 1)])
    torch.testing.assert_close(solution.events.ts, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("restitution", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("method", [ude.Tsit5(), ude.BS3()], ids=str)
def test_events_that_never_end_fail_with_a_message_that_says_so(restitution, method):
    problem = ODEProblem(falling, double(1.0, 0.0), (0.0, 10.0))
    with pytest.raises(ude.SolveError, match="events followed one another without progress in time") as caught:
        solve(problem, method, events=[bounce(restitution)])
    # The flights add up to a finite time, which is where it stops.
    first = math.sqrt(2 / GRAVITY)
    limit = first + 2 * first * restitution / (1.0 - restitution)
    assert float(caught.value.solution.events.ts[-1]) == pytest.approx(limit, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("restitution", [0.2, 0.6, 0.9])
def test_no_ball_of_a_batch_falls_through_the_floor(restitution, dtype):
    heights = torch.linspace(0.5, 2.0, 7, dtype=dtype)
    start = torch.stack([heights, torch.zeros_like(heights)], dim=-1)
    solution = solve(ODEProblem(falling, start, (0.0, 40.0), batched=True), events=[bounce(restitution)], throw=False)
    assert bool((solution.status == ude.Status.EVENTS_STALLED).all())
    assert float(solution.ys[..., 0].nan_to_num(nan=0.0).min()) > -1e-12


# Events at known times


def doses(rate, amount, start, times, t):
    return start * torch.exp(-rate * t) + sum(
        (amount * torch.exp(-rate * (t - time)) for time in times if time < t), torch.zeros(())
    )


def test_doses_at_preset_times_agree_with_superposition_and_so_does_the_gradient():
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    amount = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    event = PresetTimes([1.0, 2.5, 4.0], affect=lambda t, y: y + amount)
    problem = ODEProblem(lambda t, y: -rate * y, double(1.0), (0.0, 5.0))
    solution = solve(problem, events=[event], save_at=[0.5, 1.0, 3.0, 5.0], rtol=1e-10, atol=1e-12)
    expected = torch.stack([doses(rate, amount, 1.0, [1.0, 2.5, 4.0], t) for t in (0.5, 1.0, 3.0, 5.0)])
    torch.testing.assert_close(solution.ys[:, 0], expected, rtol=1e-8, atol=0)
    torch.testing.assert_close(solution.events.ts, double(1.0, 2.5, 4.0), rtol=0, atol=0)
    ours = torch.autograd.grad(solution.ys.sum(), [rate, amount])
    theirs = torch.autograd.grad(expected.sum(), [rate, amount])
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), rtol=1e-7, atol=0)


def test_samples_have_doses_at_their_own_times():
    times = torch.tensor([[1.0, 0.5], [2.0, 9.0]], dtype=torch.float64)  # the last one lies outside
    problem = ODEProblem(lambda t, y: -y, torch.ones(2, 1, dtype=torch.float64), (0.0, 3.0), batched=True)
    solution = solve(problem, events=[PresetTimes(times, lambda t, y: y + 1)], save_at=[3.0], rtol=1e-10, atol=1e-12)
    expected = [doses(torch.tensor(1.0), 1.0, 1.0, own, 3.0) for own in ([1.0, 2.0], [0.5])]
    torch.testing.assert_close(solution.ys[0, :, 0], torch.stack(expected).double(), rtol=1e-7, atol=0)
    assert solution.events.which.tolist() == [[0, 0], [0, -1]]


def test_a_periodic_event_happens_at_every_period_inside():
    event = Periodic(0.5, lambda t, y: y + 1)
    solution = solve(ODEProblem(lambda t, y: 0 * y, double(0.0), (0.0, 2.0)), events=[event], save_at=[2.0])
    torch.testing.assert_close(solution.events.ts, double(0.5, 1.0, 1.5), rtol=0, atol=1e-15)
    assert float(solution.ys[0, 0]) == 3.0


def test_a_period_counts_from_its_start_in_the_direction_of_time():
    still = ODEProblem(lambda t, y: 0 * y, double(0.0), (0.0, 4.0))
    assert solve(still, events=[Periodic(1.0, start=-0.5)]).events.ts.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert solve(still, events=[Periodic(1.0, start=2.25)]).events.ts.tolist() == [3.25]
    assert solve(still, events=[Periodic(1.0, start=9.0)]).events.ts.tolist() == []
    back = ODEProblem(lambda t, y: 0 * y, double(0.0), (4.0, 0.0))
    assert solve(back, events=[Periodic(1.5, start=5.0)]).events.ts.tolist() == [3.5, 2.0, 0.5]


def test_events_at_one_known_time_all_happen_in_the_order_of_the_list():
    events = [PresetTimes([1.0], lambda t, y: y + 1), PresetTimes([1.0], lambda t, y: 10 * y)]
    still = ODEProblem(lambda t, y: 0 * y, double(0.0), (0.0, 2.0))
    solution = solve(still, events=events, stop_at=[1.0], save_at=[2.0])
    assert solution.events.which.tolist() == [0, 1]
    assert float(solution.ys[0, 0]) == 10.0


def test_many_events_late_in_single_precision_are_no_stall():
    # At t = 20,000 numbers are 0.002 apart: events every 0.5 still make progress.
    def spin(t, y):
        return 2 * torch.pi * torch.stack([y[1], -y[0]])

    event = ContinuousEvent(condition=lambda t, y: y[0])
    problem = ODEProblem(spin, torch.tensor([0.0, 1.0]), (20_000.0, 20_015.0))
    solution = solve(problem, events=[event, Periodic(0.25)], max_step=0.2)
    assert bool(solution.success)
    assert int((solution.events.which == 0).sum()) in (29, 30)
    assert int((solution.events.which == 1).sum()) == 59


@pytest.mark.parametrize("adjoint", [ude.Direct(), Checkpointed()], ids=str)
def test_times_of_events_carry_a_gradient_with_either_adjoint(adjoint):
    c = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    event = ContinuousEvent(condition=lambda t, y: y[0] - c)
    problem = ODEProblem(lambda t, y: -y, double(2.0), (0.0, 3.0))
    time = solve(problem, events=[event], adjoint=adjoint, rtol=1e-9, atol=1e-11).events.ts[0]
    assert float(torch.autograd.grad(time, c)[0]) == pytest.approx(-2.0, rel=1e-7)


# Events at the ends of steps


def test_a_discrete_event_changes_the_state_after_the_step():
    event = DiscreteEvent(condition=lambda t, y: y[0] > 2.0, affect=lambda t, y: y - 1.0)
    solution = solve(ODEProblem(lambda t, y: y, double(1.0), (0.0, 3.0)), events=[event], max_step=0.1)
    assert bool((solution.events.before > 2.0).all())
    torch.testing.assert_close(solution.events.after, solution.events.before - 1.0)
    assert float(solution.ys.max()) < 2.0 * math.exp(0.11)


def test_a_discrete_event_sees_the_state_after_a_bounce():
    slow = DiscreteEvent(condition=lambda t, y: (y[0] <= 1e-9) & (y[1] < 1e-2), terminate=True)
    problem = ODEProblem(falling, double(1.0, 0.0), (0.0, 10.0))
    solution = solve(problem, events=[bounce(0.8), slow])
    assert int(solution.status) == ude.Status.TERMINATED
    assert solution.events.which.tolist()[-2:] == [0, 1]
    assert 0.0 < float(solution.events.after[-1, 1]) < 1e-2


def test_a_steady_state_ends_the_solve_where_nothing_changes():
    problem = ODEProblem(lambda t, y: 1.0 - y, double(0.0, 3.0), (0.0, 1e6))
    solution = solve(problem, events=[SteadyState(rtol=1e-6, atol=1e-6)], rtol=1e-8, atol=1e-9)
    assert int(solution.status) == ude.Status.TERMINATED
    torch.testing.assert_close(solution.ys[-1], double(1.0, 1.0), rtol=0, atol=1e-6)
    assert float(solution.ts[-1]) < 1e3


def test_a_projection_keeps_the_energy_of_an_oscillator_and_has_a_gradient():
    def energy(t, y):
        return (y.square().sum() / 2 - 0.5).reshape(1)

    problem = ODEProblem(lambda t, y: torch.stack([y[1], -y[0]]), double(1.0, 0.0), (0.0, 50.0))
    plain = solve(problem, rtol=1e-3, atol=1e-3)
    kept = solve(problem, rtol=1e-3, atol=1e-3, events=[ManifoldProjection(residual=energy)])
    assert float((kept.ys.square().sum(-1) - 1.0).abs().max()) < 1e-11
    assert float((plain.ys.square().sum(-1) - 1.0).abs().max()) > 1e-3

    def final(frequency):
        field = lambda t, y: frequency * torch.stack([y[1], -y[0]])  # noqa: E731
        events = [ManifoldProjection(residual=energy)]
        return solve(ODEProblem(field, double(1.0, 0.0), (0.0, 1.0)), ude.RK4(), dt=0.1, events=events).ys[-1]

    assert torch.autograd.gradcheck(final, torch.tensor(2.0, dtype=torch.float64, requires_grad=True), rtol=1e-6)


def test_a_positive_domain_is_never_left():
    # Steps limited by stability overshoot: without the event the fast component goes negative.
    def field(t, y):
        return torch.stack([-300.0 * y[0], 1.0 - y[1]])

    problem = ODEProblem(field, double(1.0, 0.0), (0.0, 3.0))
    options = {"method": ude.BS3(), "rtol": 1e-3, "atol": 1e-3}
    assert float(solve(problem, **options).ys.min()) < -1e-3
    kept = solve(problem, events=[PositiveDomain()], **options)
    assert float(kept.ys.min()) >= 0.0
    assert float(kept.ys[-1, 1]) == pytest.approx(1 - math.exp(-3.0), abs=1e-2)


# Misuse


def test_bad_events_are_refused_with_what_to_do():
    problem = ODEProblem(lambda t, y: -y, double(1.0, 2.0), (0.0, 1.0))
    with pytest.raises(ValueError, match="must be a list of events"):
        solve(problem, events=[lambda t, y: y])
    with pytest.raises(ValueError, match=r"events\[0\].condition` must return a tensor with one number per sample"):
        solve(problem, events=[ContinuousEvent(condition=lambda t, y: y)])
    with pytest.raises(ValueError, match=r"events\[0\].affect` must return a state like the one it gets"):
        solve(problem, events=[PresetTimes([0.5], lambda t, y: y[:1])])
    with pytest.raises(ValueError, match="`direction` must be"):
        ContinuousEvent(condition=lambda t, y: y[0], direction=2)
    with pytest.raises(ValueError, match="`period` must be a positive finite number"):
        Periodic(0.0)
    with pytest.raises(ValueError, match="more than 1000000"):
        solve(problem, events=[Periodic(1e-9)])
    with pytest.raises(ValueError, match="`times` must hold finite times"):
        solve(problem, events=[PresetTimes([0.5, math.nan])])
    with pytest.raises(ValueError, match='`events` need `engine="eager"`'):
        solve(problem, events=[SteadyState()], engine="compiled")
    with pytest.raises(ValueError, match="does not follow the option"):
        solve(problem, ude.SciPy("RK45"), events=[SteadyState()], save_at=[1.0])


def test_second_derivatives_of_event_times_are_refused_rather_than_wrong():
    c = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    event = ContinuousEvent(condition=lambda t, y: y[0] - c, terminate=True)
    time = solve(ODEProblem(lambda t, y: -y, double(2.0), (0.0, 10.0)), events=[event]).events.ts[0]
    (first,) = torch.autograd.grad(time, c, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(first, c)


# Samples of a batch are looked at apart, by functions of the whole batch


def test_conditions_and_affects_may_hold_one_number_per_sample():
    # y' = 1, reset to -b wherever y meets a: the events are a + k (a + b), samples apart.
    a, b = double(0.3, 0.7, 2.0, 0.45), double(0.1, 0.0, 0.0, 0.2)
    event = ContinuousEvent(condition=lambda t, y: y[:, 0] - a, affect=lambda t, y: -b.unsqueeze(-1) + 0 * y)
    start = torch.zeros(4, 1, dtype=torch.float64)
    problem = ODEProblem(lambda t, y: torch.ones_like(y), start, (0.0, 1.6), batched=True)
    solution = solve(problem, events=[event], save_at=[1.6])
    for i, count in enumerate([4, 2, 0, 2]):
        expected = a[i] + (a[i] + b[i]) * torch.arange(count)
        torch.testing.assert_close(solution.events.ts[:count, i], expected, rtol=0, atol=1e-12)
        assert bool((solution.events.which[count:, i] == -1).all())


@pytest.mark.parametrize("end", [0.7, 1.1, 1.5])
def test_a_zero_at_the_end_of_a_step_is_found_there_or_not_at_all(end):
    # Rounding decides whether the condition has changed sign; a point looked at before must not be taken for the zero.
    event = ContinuousEvent(condition=lambda t, y: y[0] - 0.3, affect=lambda t, y: 0 * y - 0.1)
    solution = solve(ODEProblem(lambda t, y: torch.ones_like(y), double(0.0), (0.0, end)), events=[event])
    expected = 0.3 + 0.4 * torch.arange(len(solution.events.ts), dtype=torch.float64)
    torch.testing.assert_close(solution.events.ts, expected, rtol=0, atol=1e-12)
    assert len(solution.events.ts) in (round((end - 0.3) / 0.4), round((end - 0.3) / 0.4) + 1)


def test_gradients_of_a_batch_are_those_of_its_samples_alone():
    heights = double(0.5, 1.0, 4.0, 100.0, 1.0001).requires_grad_()
    restitution = double(0.8, 0.7, 0.6, 0.5, 0.75).requires_grad_()

    def final(height, factor, batched):
        start = torch.stack([height, torch.zeros_like(height)], dim=-1)
        events = [bounce(factor), ContinuousEvent(condition=lambda t, y: y[..., 1] - 1.0)]
        return solve(ODEProblem(falling, start, (0.0, 2.0), batched=batched), events=events, save_at=[2.0]).ys[0]

    together = torch.autograd.grad(final(heights, restitution, True).sum(), [heights, restitution])
    for i in range(len(heights)):
        alone = torch.autograd.grad(
            final(heights[i], restitution[i], False).sum(), [heights, restitution], allow_unused=True
        )
        for ours, theirs in zip(together, alone, strict=True):
            expected = 0.0 if theirs is None else float(theirs[i])
            assert float(ours[i]) == pytest.approx(expected, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_an_affect_that_puts_the_condition_away_from_zero_is_no_new_event(dtype):
    # Integrate and fire as above: in single precision rounding at the zero is a larger part of the reset.
    event = ContinuousEvent(condition=lambda t, y: y[:, 0] - 1.0, affect=lambda t, y: 0 * y)
    inputs = torch.tensor([[1.2], [1.5], [4.0]], dtype=dtype)
    problem = ODEProblem(lambda t, y: inputs - y, torch.zeros(3, 1, dtype=dtype), (0.0, 10.0), batched=True)
    solution = solve(problem, events=[event])
    periods = torch.log(inputs / (inputs - 1.0))[:, 0]
    for i, period in enumerate(periods.tolist()):
        count = int(10 / period)
        expected = period * torch.arange(1, count + 1, dtype=dtype)
        assert int((solution.events.which[:, i] == 0).sum()) == count
        torch.testing.assert_close(solution.events.ts[:count, i], expected, rtol=1e-4, atol=0)


def test_a_complex_state_that_starts_at_zero_waits_until_it_has_left_zero():
    # y' = i y from y = 1: the imaginary part leaves zero upwards, and comes back at pi.
    event = ContinuousEvent(condition=lambda t, y: y[0].imag)
    problem = ODEProblem(lambda t, y: 1j * y, torch.ones(1, dtype=torch.complex128), (0.0, 4.0))
    solution = solve(problem, events=[event], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(solution.events.ts, double(math.pi), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("condition", "zero"),
    [
        (lambda t: (t - 0.3) ** 9, 0.3),  # flat: the chord says nothing
        (lambda t: torch.atan(1e6 * (t - 0.7)), 0.7),  # a cliff
        (lambda t: torch.where(t < 0.45, -1.0, 1e-12).to(t), 0.45),  # a jump
        (lambda t: torch.exp(20 * t) - math.exp(2.0), 0.1),
    ],
    ids=["flat", "cliff", "jump", "exponential"],
)
def test_zeros_of_ugly_conditions_are_found_to_rounding(condition, zero):
    event = ContinuousEvent(condition=lambda t, y: condition(t), terminate=True)
    solution = solve(ODEProblem(lambda t, y: 0 * y, double(1.0), (0.0, 1.0)), events=[event], dt=1.0)
    torch.testing.assert_close(solution.events.ts, double(zero), rtol=0, atol=1e-13)
