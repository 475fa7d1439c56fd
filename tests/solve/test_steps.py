"""Cost, step control and properties of the loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reference import oscillator, van_der_pol

import ude
from ude.methods import BS3, EXPLICIT, Dopri5, Tsit5
from ude.problems import ODEProblem

F64 = torch.float64


@pytest.mark.parametrize("save_at", [None, [2.0], [0.0, 0.1, 0.2, 0.9, 1.95, 2.0]], ids=["steps", "end", "times"])
@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_every_evaluation_is_counted(method, save_at):
    calls = 0

    def counted(t, y):
        nonlocal calls
        calls += 1
        return van_der_pol(t, y)

    problem = ODEProblem(counted, torch.tensor([2.0, 0.0], dtype=F64), (0.0, 2.0))
    options = {} if method.error_order else {"dt": 0.05}
    solution = ude.solve(problem, method, save_at=save_at, rtol=1e-4, **options)
    assert solution.stats.nfe == calls
    assert solution.stats.accepted + solution.stats.rejected == len(solution.steps.t)


def test_cost_of_the_parts():
    problem = ODEProblem(oscillator, torch.tensor([1.0, 0.0], dtype=F64), (0.0, 1.0))
    fixed = {"controller": ude.FixedStep(), "dt": 0.1}
    # First stage, probe of the initial step, six evaluations per attempt of the seven stages.
    adaptive = ude.solve(problem, Tsit5())
    assert adaptive.stats.nfe == 2 + 6 * len(adaptive.steps.t)
    assert ude.solve(problem, Tsit5(), dt=0.1).stats.nfe == 1 + 6 * len(ude.solve(problem, Tsit5(), dt=0.1).steps.t)
    assert ude.solve(problem, Dopri5(), **fixed).stats.nfe == 1 + 6 * 10
    assert ude.solve(problem, BS3(), save_at=[0.55], **fixed).stats.nfe == 1 + 3 * 10


@pytest.mark.parametrize("controller", [ude.I(), ude.PI(), ude.PID()], ids=["I", "PI", "PID"])
def test_controllers_keep_the_error_at_the_tolerance(controller):
    problem = ODEProblem(van_der_pol, torch.tensor([2.0, 0.0], dtype=F64), (0.0, 20.0))
    solution = ude.solve(problem, Tsit5(), controller=controller, rtol=1e-6, atol=1e-6)
    steps = solution.steps
    assert (steps.error[steps.accepted] <= 1).all()
    assert (steps.error[~steps.accepted] > 1).all()
    # Well used on average, and rarely in vain.
    assert steps.error[steps.accepted].mean() > 0.05
    assert solution.stats.rejected < 0.3 * solution.stats.accepted
    # No growth right after a rejection.
    lengths = steps.dt.abs()
    after = (~steps.accepted[:-2] & steps.accepted[1:-1]).nonzero().flatten() + 1
    assert (lengths[after + 1] <= lengths[after] * (1 + 1e-12)).all()


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_constant_steps_are_constant_and_end_at_the_end(method):
    problem = ODEProblem(oscillator, torch.tensor([1.0, 0.0], dtype=F64), (1.0, -0.05))
    solution = ude.solve(problem, method, dt=0.1, controller=ude.FixedStep())
    expected = torch.tensor([-0.1] * 10 + [-0.05], dtype=F64)
    torch.testing.assert_close(solution.steps.dt, expected, rtol=1e-12, atol=1e-14)
    assert solution.ts[-1] == -0.05
    assert solution.steps.accepted.all()


def test_the_step_shrinks_where_the_vector_field_has_no_value_and_goes_on():
    problem = ODEProblem(lambda t, y: -torch.sqrt(y), torch.tensor([1.0], dtype=F64), (0.0, 1.9))
    solution = ude.solve(problem, Tsit5(), save_at=[1.9], dt=1.9)
    assert solution.steps.error[0] == torch.inf
    assert not solution.steps.accepted[0]
    torch.testing.assert_close(solution.ys[0], torch.tensor([0.0025], dtype=F64), rtol=1e-2, atol=0.0)


def test_the_default_method_follows_the_tolerance():
    problem = ODEProblem(oscillator, torch.tensor([1.0, 0.0], dtype=F64), (0.0, 10.0))
    tight = ude.solve(problem, save_at=[10.0], rtol=1e-10, atol=1e-12)
    assert tight.stats.nfe < ude.solve(problem, Tsit5(), save_at=[10.0], rtol=1e-10, atol=1e-12).stats.nfe
    exact = torch.tensor([10.0, 10.0], dtype=F64)
    torch.testing.assert_close(tight.ys[0], torch.stack([exact[0].cos(), -exact[1].sin()]), rtol=1e-8, atol=1e-8)


finite = st.floats(-2.0, 2.0, allow_nan=False)


@settings(max_examples=15, deadline=None)
@given(a=finite, b=finite, x=finite, v=finite)
def test_constant_steps_of_a_linear_equation_are_linear_in_the_initial_state(a, b, x, v):
    def end(y0):
        problem = ODEProblem(oscillator, torch.tensor(y0, dtype=F64), (0.0, 1.0))
        return ude.solve(problem, Tsit5(), save_at=[0.33, 1.0], dt=0.25, controller=ude.FixedStep()).ys

    combined = end([a * x + b, a * v - b])
    # Rounding of numbers up to 6.
    torch.testing.assert_close(combined, a * end([x, v]) + b * end([1.0, -1.0]), rtol=1e-12, atol=1e-13)


@settings(max_examples=15, deadline=None)
@given(
    fractions=st.lists(st.floats(0.0, 1.0, allow_nan=False), min_size=1, max_size=6),
    t0=st.floats(-2.0, 2.0),
    span=st.floats(-3.0, 3.0).filter(lambda s: abs(s) > 1e-3),
)
def test_saved_states_are_those_of_the_continuous_solution(fractions, t0, span):
    y0 = torch.tensor([0.5, 1.0], dtype=F64)
    ts = t0 + span * torch.tensor(sorted(fractions), dtype=F64)
    ts = ts.clamp(min(t0, t0 + span), max(t0, t0 + span))
    problem = ODEProblem(oscillator, y0, (t0, t0 + span))
    solution = ude.solve(problem, Tsit5(), save_at=ts, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(solution(ts), solution.ys, rtol=1e-14, atol=1e-14)
    turn = ts - t0
    exact = torch.stack([0.5 * turn.cos() + turn.sin(), turn.cos() - 0.5 * turn.sin()], -1)
    # The interpolant is one order below the step: up to some ten times the tolerance.
    torch.testing.assert_close(solution.ys, exact, rtol=1e-6, atol=1e-7)
