"""Reference problems against closed forms, SciPy and published values."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from ude import systems
from ude.ad import jvp


def integrate(problem, ts):
    def f(t, y):
        args = (torch.tensor(t, dtype=torch.float64), torch.from_numpy(y))
        return problem.vector_field(*args, *(() if problem.p is None else (problem.p,))).numpy()

    solution = solve_ivp(f, problem.t_span, problem.y0.numpy(), "DOP853", ts, rtol=1e-12, atol=1e-12)
    return solution.y.T


@pytest.mark.parametrize(
    ("problem", "exact"),
    [
        (systems.harmonic_oscillator(), systems.harmonic_oscillator_solution),
        (
            systems.harmonic_oscillator((0.3, -2.0), omega=3.0),
            lambda t: systems.harmonic_oscillator_solution(t, (0.3, -2.0), omega=3.0),
        ),
        (systems.oscillating_growth(), systems.oscillating_growth_solution),
        (systems.logistic(rate=2.0), lambda t: systems.logistic_solution(t, rate=2.0)),
    ],
)
def test_exact_solution_satisfies_its_equation_and_its_start(problem, exact):
    ts = torch.linspace(0, 5, 11, dtype=torch.float64)
    ys, slope = jvp(exact, (ts,), (torch.ones_like(ts),))
    for t, y, dy in zip(ts, ys, slope, strict=True):
        field = problem.vector_field(t, y, *(() if problem.p is None else (problem.p,)))
        torch.testing.assert_close(field, dy, rtol=1e-12, atol=1e-12)  # rounding only
    torch.testing.assert_close(ys[0], problem.y0)


def test_seir_reaches_the_published_values():
    states = dict(zip(systems.SEIR_STATES, integrate(systems.seir((0.0, 60.0)), [21.0, 60.0]).T, strict=True))
    # The references are quoted with two decimals.
    np.testing.assert_allclose([states[k][0] for k in "EIR"], [75.78, 85.84, 129.63], atol=0.006)
    np.testing.assert_allclose([states[k][1] for k in "EIR"], [493.30, 637.42, 1887.95], atol=0.006)


def test_seir_exposure_has_the_published_size():
    ys = torch.from_numpy(integrate(systems.seir((0.0, 60.0)), [21.0, 60.0]))
    np.testing.assert_allclose(systems.seir_exposure(ys), [26.40, 186.5], rtol=5e-4)  # quoted with 4 digits


def test_arenstorf_orbit_closes_after_its_period():
    problem = systems.arenstorf()
    end = integrate(problem, [systems.ARENSTORF_PERIOD])[0]
    # The orbit amplifies local errors of 1e-12 by about 1e5.
    np.testing.assert_allclose(end[:2], problem.y0[:2], atol=1e-5)


def test_lotka_volterra_conserves_its_first_integral():
    problem = systems.lotka_volterra_paper((0.0, 20.0))
    x, y = integrate(problem, np.linspace(0, 20, 50)).T
    alpha, beta, gamma, delta = problem.p.tolist()
    invariant = delta * x - gamma * np.log(x) + beta * y - alpha * np.log(y)
    np.testing.assert_allclose(invariant, invariant[0], rtol=1e-8)  # integrated at 1e-12


@pytest.mark.parametrize(
    "make", [systems.van_der_pol, systems.lorenz, systems.damped_cubic, systems.fitzhugh_nagumo, systems.seir]
)
def test_fields_act_row_wise_on_a_batch(make):
    problem = make()
    batch = problem.y0 * torch.linspace(0.5, 1.5, 3, dtype=torch.float64)[:, None]
    rows = torch.stack([problem.vector_field(0.0, y, problem.p) for y in batch])
    torch.testing.assert_close(problem.vector_field(0.0, batch, problem.p), rows)


def test_hudson_bay_is_the_published_series():
    data = systems.hudson_bay()
    assert data.states == ("hare", "lynx")
    assert data.ys.shape == (1, 21, 2)
    assert data.ys.amax((0, 1)).tolist() == [77.4, 59.4]
    # Column sums computed apart, from a second copy of the table.
    np.testing.assert_allclose(data.ys.sum((0, 1)), [715.7, 423.5])
    assert systems.hudson_bay(normalized=True).ys.amax((0, 1)).tolist() == [1.0, 1.0]
