"""States beside torchdiffeq's own, for every method, in both directions of time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchdiffeq
from compat_cases import BACKWARD, F64, FORWARD, as_rows, forced, pair, start, start_pair
from scipy.integrate import solve_ivp

from ude.compat import odeint
from ude.compat.names import ADAMS, ADAPTIVE, FIXED, NAMES
from ude.problems import ODEProblem
from ude.solve import FixedStep, solve

TIMES = {"forward": FORWARD, "backward": BACKWARD}
# Accuracy that each method reaches in a second, as (rtol, atol).
TOLERANCES = {
    "dopri8": (1e-10, 1e-12),
    "dopri5": (1e-9, 1e-11),
    "tsit5": (1e-9, 1e-11),
    "bosh3": (1e-6, 1e-8),
    "fehlberg2": (1e-5, 1e-7),
    "adaptive_heun": (1e-5, 1e-7),
}


def exact(t):
    def field(t, y):
        return forced(torch.tensor(t), torch.from_numpy(y).reshape(2, 2)).numpy().ravel()

    span = (float(t[0]), float(t[-1]))
    solution = solve_ivp(field, span, start().numpy().ravel(), "DOP853", t.numpy(), rtol=1e-13, atol=1e-14)
    return torch.from_numpy(np.ascontiguousarray(solution.y.T)).reshape(-1, 2, 2)


def test_every_name_of_torchdiffeq_is_known():
    from torchdiffeq._impl.odeint import SOLVERS

    assert set(NAMES) == set(SOLVERS) | {"tsit5"}


@pytest.mark.parametrize("direction", TIMES)
@pytest.mark.parametrize("method", ADAPTIVE)
def test_adaptive_methods_agree_with_torchdiffeq_and_scipy_to_their_tolerance(method, direction):
    t, (rtol, atol) = TIMES[direction], TOLERANCES[method]
    ours = odeint(forced, start(), t, rtol=rtol, atol=atol, method=method)
    # The tolerance bounds the error of a step; over the interval some hundred times as much remains.
    torch.testing.assert_close(ours, exact(t), rtol=0.0, atol=300 * rtol)
    if method != "tsit5":  # not in the release of torchdiffeq
        theirs = torchdiffeq.odeint(forced, start(), t, rtol=rtol, atol=atol, method=method)
        # Between its long steps torchdiffeq's dopri8 interpolates with order 4 only: 3e-7 here.
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-6 if method == "dopri8" else 300 * rtol)


@pytest.mark.parametrize("direction", TIMES)
@pytest.mark.parametrize("method", ["dopri5", "dopri8", "bosh3"])
def test_adaptive_methods_take_the_steps_that_torchdiffeq_takes(method, direction):
    calls = [0, 0]

    def counted(which):
        def field(t, y):
            calls[which] += 1
            return forced(t, y)

        return field

    t = TIMES[direction][[0, -1]]
    odeint(counted(0), start(), t, rtol=1e-7, atol=1e-9, method=method)
    torchdiffeq.odeint(counted(1), start(), t, rtol=1e-7, atol=1e-9, method=method)
    stages = ADAPTIVE[method].evaluations
    # Ours stops at the last time, theirs steps over it: only the last step differs.
    assert abs(calls[0] - calls[1]) <= stages + ADAPTIVE[method].dense_evaluations
    assert calls[0] > 5 * stages


@pytest.mark.parametrize("direction", TIMES)
@pytest.mark.parametrize("options", [None, {"step_size": 0.07}, {"step_size": 0.07, "interp": "cubic"}], ids=str)
@pytest.mark.parametrize("method", FIXED)
def test_fixed_methods_give_torchdiffeq_s_numbers(method, options, direction):
    t = TIMES[direction]
    ours = odeint(forced, start(), t, method=method, options=options)
    theirs = torchdiffeq.odeint(forced, start(), t, method=method, options=options)
    # The same operations in another order.
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("method", FIXED)
def test_fixed_methods_converge_at_their_order(method):
    t = FORWARD[[0, -1]]
    errors = [
        float((odeint(forced, start(), t, method=method, options={"step_size": 2.0 / n}) - exact(t)).abs().max())
        for n in (80, 160)
    ]
    assert np.log2(errors[-2] / errors[-1]) == pytest.approx(FIXED[method].order, abs=0.15)


@pytest.mark.parametrize("direction", TIMES)
@pytest.mark.parametrize("method", ADAMS)
@pytest.mark.parametrize("options", [{"step_size": 0.05}, {"step_size": 0.05, "max_order": 5, "max_iters": 8}], ids=str)
def test_multistep_methods_give_torchdiffeq_s_numbers(method, options, direction):
    t = TIMES[direction]
    ours = odeint(pair, start_pair(), t, method=method, options=options)
    theirs = torchdiffeq.odeint(pair, start_pair(), t, method=method, options=options)
    assert torch.equal(as_rows(ours), as_rows(theirs))


@pytest.mark.parametrize("direction", TIMES)
@pytest.mark.parametrize("solver", ["LSODA", "RK45", "Radau"])
def test_scipy_s_methods_agree(solver, direction):
    t, options = TIMES[direction], {"solver": solver}
    ours = odeint(forced, start(), t, rtol=1e-9, atol=1e-10, method="scipy_solver", options=options)
    torch.testing.assert_close(ours, exact(t), rtol=0.0, atol=1e-6)
    assert ours.dtype == F64
    assert not odeint(forced, start(grad=True), t, method="scipy_solver").requires_grad


@pytest.mark.parametrize("direction", TIMES)
@pytest.mark.parametrize("method", ["dopri5", "rk4", "scipy_solver"])
def test_a_tuple_state_comes_back_as_a_tuple(method, direction):
    t = TIMES[direction]
    ours = odeint(pair, start_pair(), t, rtol=1e-9, atol=1e-11, method=method)
    theirs = torchdiffeq.odeint(pair, start_pair(), t, rtol=1e-9, atol=1e-11, method=method)
    assert isinstance(ours, tuple)
    assert [part.shape for part in ours] == [part.shape for part in theirs] == [(len(t), 2, 2), (len(t), 1)]
    torch.testing.assert_close(as_rows(ours), as_rows(theirs), rtol=0.0, atol=1e-6)


def test_a_field_may_return_a_list_for_a_tuple():
    ours = odeint(lambda t, y: list(pair(t, y)), start_pair(), FORWARD)
    torch.testing.assert_close(as_rows(ours), as_rows(odeint(pair, start_pair(), FORWARD)), rtol=0.0, atol=0.0)


def test_tensors_of_several_dtypes_are_widened_as_by_torchdiffeq():
    y0 = (start(), torch.zeros(1, dtype=torch.float32))
    ours, theirs = (module(pair, y0, FORWARD, rtol=1e-9) for module in (odeint, torchdiffeq.odeint))
    assert [part.dtype for part in ours] == [part.dtype for part in theirs] == [F64, F64]
    torch.testing.assert_close(as_rows(ours), as_rows(theirs), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
@pytest.mark.parametrize(("state", "time"), [("float32", "float64"), ("float64", "float32"), ("float32", "float32")])
def test_the_field_sees_time_in_the_precision_of_the_state(method, state, time):
    seen = [set(), set()]

    def looking(which):
        def field(t, y):
            seen[which].add((t.dtype, t.shape))
            return forced(t, y)

        return field

    y0, t = start().to(getattr(torch, state)), FORWARD.to(getattr(torch, time))
    ours = odeint(looking(0), y0, t, rtol=1e-5, atol=1e-6, method=method)
    theirs = torchdiffeq.odeint(looking(1), y0, t, rtol=1e-5, atol=1e-6, method=method)
    assert seen[0] == seen[1] == {(y0.dtype, torch.Size([]))}
    assert ours.dtype == theirs.dtype == y0.dtype
    # Single precision of the times makes single precision of the lengths of the steps.
    torch.testing.assert_close(
        ours, theirs, rtol=1e-4 if method == "dopri5" else 1e-6, atol=1e-4 if method == "dopri5" else 1e-6
    )


@pytest.mark.parametrize("method", ["dopri5", "rk4", "implicit_adams"])
def test_a_complex_state_is_solved(method):
    def rotation(t, z):
        return (1j - 0.1 * torch.cos(t)) * z

    z0 = torch.tensor([1.0 + 0.5j, -0.3j], dtype=torch.complex128)
    t = torch.linspace(0.0, 2.0, 41, dtype=F64)
    ours, theirs = (module(rotation, z0, t, rtol=1e-9, method=method) for module in (odeint, torchdiffeq.odeint))
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)
    expected = z0 * torch.exp(1j * t - 0.1 * torch.sin(t)).unsqueeze(-1)
    # Forty steps of order 4.
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["dopri5", "euler", "scipy_solver"])
def test_one_time_gives_the_initial_state(method):
    ours = odeint(forced, start(), FORWARD[:1], method=method)
    assert torch.equal(ours, start().unsqueeze(0))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_a_state_of_any_shape(shape):
    y0 = torch.rand(shape, dtype=F64)
    ours = odeint(lambda t, y: -t * y, y0, FORWARD)
    decay = torch.exp(-0.5 * FORWARD**2).reshape(-1, *[1] * len(shape))
    torch.testing.assert_close(ours, y0 * decay, rtol=1e-6, atol=1e-8)


def test_a_derivative_of_another_shape_or_precision_is_broadcast():
    y0 = torch.rand(2, 3, dtype=F64)
    expected = odeint(lambda t, y: y.mean().expand(2, 3), y0, FORWARD)
    for other in (lambda t, y: y.mean(), lambda t, y: y.mean().expand(1, 2, 3), lambda t, y: y.mean().expand(3)):
        assert torch.equal(odeint(other, y0, FORWARD), expected)
    single = odeint(lambda t, y: torch.ones(2, 3), y0, FORWARD)
    torch.testing.assert_close(single, y0 + FORWARD.reshape(-1, 1, 1), rtol=1e-7, atol=1e-9)


def test_the_field_is_not_evaluated_beyond_the_last_time():
    latest = []

    def field(t, y):
        latest.append(float(t))
        return forced(t, y)

    odeint(field, start(), FORWARD)
    assert max(latest) <= float(FORWARD[-1])
    assert min(latest) >= float(FORWARD[0])


def test_fehlberg_s_pair_converges_at_its_order():
    problem = ODEProblem(forced, start(), (0.0, 2.0))
    errors = []
    for n in (40, 80):
        ys = solve(problem, ADAPTIVE["fehlberg2"], save_at=[2.0], dt=2.0 / n, controller=FixedStep()).ys
        errors.append(float((ys[0] - exact(FORWARD)[-1]).abs().max()))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("method", sorted(set(ADAPTIVE) - {"tsit5"}))
def test_error_estimates_are_those_of_torchdiffeq(method):
    from torchdiffeq._impl.odeint import SOLVERS

    theirs, ours = SOLVERS[method].tableau, ADAPTIVE[method].tableau
    np.testing.assert_allclose(ours.b, theirs.c_sol.numpy(), atol=1e-15)
    np.testing.assert_allclose(np.abs(ours.b_err), theirs.c_error.abs().numpy(), atol=1e-15)
