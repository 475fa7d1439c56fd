"""Batched least squares, and the exact derivative of solutions by coefficients, parameters and initial states."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares

from ude.discovery import Fourier, Polynomial
from ude.discovery.refit import LevenbergMarquardt, covariance
from ude.discovery.selection import NoiseModel
from ude.discovery.shooting import Grid, Shooting
from ude.discovery.sparse_term import SparseTerm
from ude.models import UDE, Parameter, Signal
from ude.problems import Trajectories
from ude.systems import hudson_bay, lotka_volterra_paper

LIBRARY = Polynomial(degree=5) + Fourier(1, cos=False)
NAMES = LIBRARY.names(["x", "y"])
XY = NAMES.index("x y")
WIDTH = len(NAMES)


class Decays:
    """Residuals of a exp(-b t) against data, one pair (a, b) per problem."""

    t = torch.linspace(0, 2, 9, dtype=torch.float64)

    def __init__(self, ys):
        self.ys = ys

    def residuals(self, theta, rows):
        values = theta[:, :1] * torch.exp(-theta[:, 1:] * self.t)
        return values - self.ys[rows], values

    def jacobian(self, theta, rows, memo):
        return torch.stack([memo / theta[:, :1], -self.t * memo], dim=-1)


def lotka_volterra(parameters=None):
    zeros = torch.zeros(2, WIDTH, dtype=torch.float64)
    known = lambda t, y: (1.3 * y[..., 0], -1.8 * y[..., 1])  # noqa: E731
    if parameters:
        known = lambda t, y, p: (p.a * y[..., 0], -p.d * y[..., 1])  # noqa: E731
    return UDE(known, SparseTerm(LIBRARY, zeros), states=("x", "y"), parameters=parameters)


def test_every_problem_of_a_batch_reaches_the_minimum_that_scipy_finds():
    generator = torch.Generator().manual_seed(0)
    true = torch.tensor([[2.0, 1.0], [0.5, 3.0], [4.0, 0.2]], dtype=torch.float64)
    clean = true[:, :1] * torch.exp(-true[:, 1:] * Decays.t)
    ys = clean + 0.1 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    start = torch.ones(3, 2, dtype=torch.float64)
    found = LevenbergMarquardt(tolerance=1e-14).minimize(Decays(ys), start, torch.ones(3, 2, dtype=torch.bool))
    distance = lambda p, y: p[0] * np.exp(-p[1] * Decays.t.numpy()) - y  # noqa: E731
    for i in range(3):
        reference = least_squares(distance, [1.0, 1.0], args=(ys[i].numpy(),), xtol=1e-15, ftol=1e-15)
        # A minimum is known to the square root of the accuracy of its value.
        np.testing.assert_allclose(found.theta[i], reference.x, rtol=1e-6)
    assert found.converged.all()


def test_a_parameter_that_is_not_free_stays_and_a_hopeless_problem_does_not_disturb_the_others():
    ys = torch.exp(-Decays.t).expand(3, -1).clone()
    ys[2] = torch.nan
    free = torch.tensor([[True, True], [False, True], [True, True]])
    start = torch.tensor([[3.0, 0.1], [1.5, 0.1], [1.0, 1.0]], dtype=torch.float64)
    found = LevenbergMarquardt().minimize(Decays(ys), start, free)
    torch.testing.assert_close(found.theta[0], torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-6)
    assert found.theta[1, 0] == 1.5
    assert found.cost[2] == torch.inf
    assert found.converged.tolist() == [True, True, False]


def test_candidates_without_a_chance_are_given_up_when_asked():
    ys = torch.stack([torch.exp(-Decays.t), torch.sin(9 * Decays.t)])
    start, free = torch.full((2, 2), 0.5, dtype=torch.float64), torch.ones(2, 2, dtype=torch.bool)
    found = LevenbergMarquardt(hopeless=10.0, max_iter=100).minimize(Decays(ys), start, free)
    assert found.converged.tolist() == [True, False]


def test_the_derivative_of_solutions_is_that_of_finite_differences():
    # Two trajectories of different length, a missing value, a positive state, a bounded parameter and an input.
    generator = torch.Generator().manual_seed(1)
    ts = torch.tensor([[0.0, 0.3, 0.5, 1.0], [0.2, 0.6, 0.6, 0.6]], dtype=torch.float64)
    ys = torch.rand(2, 4, 2, generator=generator, dtype=torch.float64)
    ys[1, 2:] = torch.nan
    ys[0, 1, 0] = torch.nan
    data = Trajectories(
        ts=ts, ys=ys, states=("x", "y"), groups=("1", "2"), inputs=ts[..., None] ** 2, input_names=("light",)
    )
    library = Polynomial(degree=2)
    model = UDE(
        lambda t, y, p: (p.a * y[..., 0] + p.light, -p.d * y[..., 1]),
        SparseTerm(library, torch.zeros(2, 6, dtype=torch.float64)),
        states=("x", "y"),
        parameters={"a": Parameter(0.5, bounds=(0.0, 2.0)), "d": Parameter(0.7, positive=True)},
        positive=("y",),
        inputs=("light",),
    )
    signal = Signal.linear(data.ts, data.inputs)
    shooting = Shooting(model, data, torch.tensor([1.0, 3.0], dtype=torch.float64), 0.1, signal=signal)
    theta = 0.1 * torch.randn(2, shooting.layout.size, generator=generator, dtype=torch.float64)
    rows = torch.arange(2)
    residuals, memo = shooting.residuals(theta, rows)
    jacobian = shooting.jacobian(theta, rows, memo)
    assert jacobian.shape == (2, 2 * 4 * 2, 12 + 2 + 4)
    h = 1e-6
    for column in range(theta.shape[1]):
        shift = torch.zeros_like(theta)
        shift[:, column] = h
        plus, minus = (shooting.residuals(theta + s, rows)[0] for s in (shift, -shift))
        # Central differences: error h^2 from curvature and 1e-16 / h from rounding.
        torch.testing.assert_close(jacobian[..., column], (plus - minus) / (2 * h), rtol=1e-6, atol=1e-8)
    assert (residuals.reshape(2, 2, 4, 2)[:, 1, 2:] == 0).all()


def test_steps_meet_every_time_of_the_data():
    grid = Grid.of(torch.tensor([[0.0, 0.25, 1.0], [0.0, 0.5, 0.5]], dtype=torch.float64), 0.25)
    assert grid.at.tolist() == [0, 2, 5]
    ends = torch.cat([grid.t[:1], grid.t + grid.dt])
    torch.testing.assert_close(ends[grid.at].T, torch.tensor([[0.0, 0.25, 1.0], [0.0, 0.5, 0.5]], dtype=torch.float64))
    assert grid.dt.max() <= 0.25


def test_the_refit_of_lotka_volterra_is_that_of_scipy():
    problem = lotka_volterra_paper()
    ts = np.linspace(0, 3, 31)
    rng = np.random.default_rng(0)

    def solution(p):
        f = lambda t, u: [1.3 * u[0] + p[0] * u[0] * u[1], p[1] * u[0] * u[1] - 1.8 * u[1]]  # noqa: E731
        return solve_ivp(f, (0, 3), p[2:], t_eval=ts, rtol=1e-11, atol=1e-12, method="DOP853").y.T

    start = problem.y0.numpy()
    ys = solution([-0.9, 0.8, *start]) + 0.02 * rng.standard_normal((31, 2))
    weights = np.array([1.0, 0.5])
    reference = least_squares(
        lambda p: ((solution(p) - ys) * weights).ravel(), [-0.8, 0.9, *ys[0]], xtol=1e-14, ftol=1e-14
    )
    data = Trajectories.from_arrays(torch.tensor(ts), torch.tensor(ys), states=("x", "y"))
    shooting = Shooting(lotka_volterra(), data, torch.tensor(weights), 0.025)
    theta = torch.zeros(1, shooting.layout.size, dtype=torch.float64)
    columns = [XY, WIDTH + XY, -2, -1]
    theta[0, columns] = torch.tensor([-0.8, 0.9, *ys[0]], dtype=torch.float64)
    free = torch.zeros_like(theta, dtype=torch.bool)
    free[0, columns] = True
    found = LevenbergMarquardt(tolerance=1e-14).minimize(shooting, theta, free)
    # Steps of 0.025 solve to 1e-9; the reference derivative is one of finite differences.
    np.testing.assert_allclose(found.theta[0, columns], reference.x, rtol=1e-6)
    np.testing.assert_allclose(found.cost[0], 2 * reference.cost, rtol=1e-8)


@pytest.mark.parametrize(
    ("fit_start", "sse", "values"),
    [
        (False, 0.15788, (-1.69659, 2.04213, 0.55653, 0.82667)),
        (True, 0.12269, (-1.4743, 2.1121, 0.4823, 0.9174, 0.4577, 0.0663)),
    ],
)
def test_hudson_bay_refits_to_the_published_minimum(fit_start, sse, values):
    # Reference: an independent Levenberg-Marquardt fit to the series divided by their maxima.
    data = hudson_bay(normalized=True)
    shooting = Shooting(lotka_volterra({"a": 0.7, "d": 1.0}), data, torch.ones(2, dtype=torch.float64), 0.25)
    columns = [XY, WIDTH + XY, 2 * WIDTH, 2 * WIDTH + 1] + [-2, -1] * fit_start
    theta = torch.zeros(1, shooting.layout.size, dtype=torch.float64)
    theta[0, columns[:4]] = torch.tensor([-1.7, 2.2, 0.6669, 1.0195], dtype=torch.float64)
    theta[0, -2:] = data.ys[0, 0]
    free = torch.zeros_like(theta, dtype=torch.bool)
    free[0, columns] = True
    found = LevenbergMarquardt(tolerance=1e-12).minimize(shooting, theta, free)
    # The reference is printed with five digits.
    assert float(found.cost[0]) == pytest.approx(sse, abs=1e-5)
    np.testing.assert_allclose(found.theta[0, columns], values, atol=1e-4)


def test_covariance_is_the_inverse_of_the_normal_matrix_and_tells_what_cannot_be_told_apart():
    generator = torch.Generator().manual_seed(2)
    jacobian = torch.randn(3, 20, 4, generator=generator, dtype=torch.float64)
    matrix, singular_values = covariance(jacobian)
    torch.testing.assert_close(matrix, torch.linalg.inv(jacobian.mT @ jacobian))
    assert (singular_values > 0.1).all()
    jacobian[..., 3] = 2 * jacobian[..., 0]
    # Two equal directions: the smallest singular value is zero to rounding.
    assert (covariance(jacobian)[1][:, -1] < 1e-12).all()


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say():
    # 200 noisy data sets with the structure known, fitted as one batch.
    problem, runs = lotka_volterra_paper(), 200
    ts = torch.linspace(0, 3, 31, dtype=torch.float64)
    clean = Trajectories.from_arrays(ts, torch.zeros(31, 2), states=("x", "y"))
    shooting = Shooting(lotka_volterra(), clean, torch.ones(2, dtype=torch.float64), 0.05)
    columns = [XY, WIDTH + XY, -2, -1]
    truth = torch.tensor([-0.9, 0.8, *problem.y0.tolist()], dtype=torch.float64)
    theta = torch.zeros(runs, shooting.layout.size, dtype=torch.float64)
    theta[:, columns] = truth
    exact = shooting.states(shooting.nodes(theta[:1]))
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(runs, *exact.shape[1:], generator=generator, dtype=torch.float64)
    ys = exact + torch.tensor([0.02, 0.05], dtype=torch.float64) * noise
    free = torch.zeros_like(theta, dtype=torch.bool)
    free[:, columns] = True
    weights = torch.tensor([1 / 0.02, 1 / 0.05], dtype=torch.float64)
    fitted = Shooting(lotka_volterra(), clean, weights, 0.05, ys=ys)
    found = LevenbergMarquardt().minimize(fitted, theta, free)
    counts = torch.tensor([31.0, 31.0], dtype=torch.float64)
    model = NoiseModel(counts=counts, scale=1 / weights, floor=0 * weights)
    residuals = found.residuals.reshape(runs, 31, 2) / weights
    deviations = torch.stack([model.deviation(r.square().sum(0), spent=4) for r in residuals])
    whitened = found.jacobian.reshape(runs, 31, 2, -1)[..., columns] / (weights * deviations)[:, None, :, None]
    errors = covariance(whitened.flatten(1, 2))[0].diagonal(dim1=-2, dim2=-1).sqrt()
    reach = 1.6716  # 95 % quantile of Student's distribution with 58 degrees of freedom
    covered = ((found.theta[:, columns] - truth).abs() <= reach * errors).double().mean(0)
    # 90 %, with three standard deviations of a count of 200 on either side, rounded in.
    assert ((covered >= 0.85) & (covered <= 0.95)).all()
