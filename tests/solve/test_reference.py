"""Six systems against SciPy's DOP853 at its tightest tolerance, and properties every solution has."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from ude.methods import Dopri5, Tsit5
from ude.problems import ODEProblem
from ude.solve import solve


def forced_growth(t, y):
    return y * torch.cos(t)


def oscillator(t, y):
    return torch.stack([y[..., 1], -y[..., 0]], -1)


def lotka_volterra(t, y):
    x, z = y[..., 0], y[..., 1]
    return torch.stack([1.3 * x - 0.9 * x * z, 0.8 * x * z - 1.8 * z], -1)


def van_der_pol(t, y):
    x, v = y[..., 0], y[..., 1]
    return torch.stack([v, 2.0 * (1 - x * x) * v - x], -1)


def lorenz(t, y):
    x, v, z = y[..., 0], y[..., 1], y[..., 2]
    return torch.stack([10.0 * (v - x), x * (28.0 - z) - v, x * v - 8.0 / 3.0 * z], -1)


def brusselator(t, y):
    x, v = y[..., 0], y[..., 1]
    return torch.stack([1.0 + x * x * v - 4.0 * x, 3.0 * x - x * x * v], -1)


SYSTEMS = {
    "forced growth": (forced_growth, [1.0], 6.0),
    "oscillator": (oscillator, [1.0, 0.0], 10.0),
    "Lotka-Volterra": (lotka_volterra, [0.44249296, 4.6280594], 3.0),
    "van der Pol": (van_der_pol, [2.0, 0.0], 8.0),
    "Lorenz": (lorenz, [1.0, 1.0, 1.0], 2.0),
    "Brusselator": (brusselator, [1.5, 3.0], 10.0),
}


def reference(field, y0, ts: Tensor) -> Tensor:
    def right_hand_side(t, y):
        return field(torch.tensor(t), torch.from_numpy(y)).numpy()

    span = (float(ts[0]), float(ts[-1]))
    solution = solve_ivp(right_hand_side, span, np.array(y0), "DOP853", ts.numpy(), rtol=1e-12, atol=1e-13)
    return torch.from_numpy(solution.y.T)


@pytest.mark.parametrize("method", [Tsit5(), Dopri5()], ids=str)
@pytest.mark.parametrize("name", SYSTEMS)
def test_agrees_with_scipy_at_its_tightest_tolerance(name, method):
    field, y0, end = SYSTEMS[name]
    ts = torch.linspace(0.0, end, 13, dtype=torch.float64)
    problem = ODEProblem(field, torch.tensor(y0, dtype=torch.float64), (0.0, end))
    solution = solve(problem, method, save_at=ts, rtol=1e-10, atol=1e-12)
    # The chaotic and relaxing systems amplify the local tolerance by up to some 1e3 over these intervals.
    torch.testing.assert_close(solution.ys, reference(field, y0, ts), rtol=1e-7, atol=1e-8)


def test_the_state_at_the_end_of_a_step_is_the_step_s_own():
    problem = ODEProblem(oscillator, torch.tensor([1.0, 0.0], dtype=torch.float64), (0.0, 4.0))
    steps = solve(problem, Tsit5())
    again = solve(problem, Tsit5(), save_at=steps.ts)
    assert torch.equal(again.ys, steps.ys)
    assert steps.ts[0] == 0.0
    assert steps.ts[-1] == 4.0


def test_time_runs_backwards():
    problem = ODEProblem(lotka_volterra, torch.tensor([0.4, 4.6], dtype=torch.float64), (0.0, 2.0))
    there = solve(problem, Tsit5(), save_at=[2.0], rtol=1e-10, atol=1e-12).ys[0]
    back = solve(ODEProblem(lotka_volterra, there, (2.0, 0.0)), Tsit5(), save_at=[1.0, 0.0], rtol=1e-10, atol=1e-12)
    # Errors of 1e-10 per step are amplified by the contraction of the forward flow.
    torch.testing.assert_close(back.ys[-1], problem.y0, rtol=1e-7, atol=1e-8)
    assert math.isclose(float(back.ts[0]), 1.0)


def test_splitting_the_interval_changes_nothing_but_rounding_within_tolerance():
    y0 = torch.tensor([2.0, 0.0], dtype=torch.float64)
    whole = solve(ODEProblem(van_der_pol, y0, (0.0, 4.0)), Tsit5(), save_at=[4.0], rtol=1e-10, atol=1e-12).ys[0]
    half = solve(ODEProblem(van_der_pol, y0, (0.0, 1.7)), Tsit5(), save_at=[1.7], rtol=1e-10, atol=1e-12).ys[0]
    rest = solve(ODEProblem(van_der_pol, half, (1.7, 4.0)), Tsit5(), save_at=[4.0], rtol=1e-10, atol=1e-12).ys[0]
    torch.testing.assert_close(rest, whole, rtol=1e-8, atol=1e-8)
