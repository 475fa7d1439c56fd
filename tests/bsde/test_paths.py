import math

import pytest
import torch

from ude.bsde import BySolver, DeepBSDE, EqualSteps, SemilinearPDE, Training, black_scholes_barenblatt, solve
from ude.methods import RI1, SOSRA, SOSRI, EulerMaruyama, LambaEM, Milstein
from ude.problems import SolveError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def heat(**changes):
    given = {
        "drift": 0.5,
        "diffusion": 2.0,
        "f": lambda t, x, u, grad_u: torch.zeros_like(u),
        "g": lambda x: (x**2).sum(-1, keepdim=True),
        "t1": 1.5,
    }
    return SemilinearPDE(**(given | changes))


X0 = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)


def test_constants_and_functions_that_are_constant_give_the_same_paths():
    one = EqualSteps(steps=7).draw(heat(), X0, 0.5, 11, seeded())
    pde = heat(drift=lambda t, x: torch.full_like(x, 0.5), diffusion=lambda t, x: torch.full_like(x, 2.0))
    other = EqualSteps(steps=7).draw(pde, X0, 0.5, 11, seeded())
    torch.testing.assert_close(one.xs, other.xs)
    torch.testing.assert_close(one.noise, other.noise)
    assert torch.equal(one.ts, torch.linspace(0.5, 1.5, 8, dtype=torch.float64))
    assert torch.equal(one.xs[0], X0.expand(11, 3))


def test_a_step_is_drift_and_noise():
    pde = heat(drift=lambda t, x: t * x, diffusion=lambda t, x: torch.stack([x, t + 0 * x], -1))
    paths = EqualSteps(steps=5).draw(pde, X0, 0.0, 4, seeded())
    assert paths.noise.shape == (5, 4, 3)
    expected = paths.states + 0.3 * paths.times * paths.states + paths.noise
    torch.testing.assert_close(paths.xs[1:], expected)
    torch.testing.assert_close(paths.end, paths.xs[-1])


def test_noise_has_the_variance_of_the_diffusion():
    matrix = torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.0, 3.0]], dtype=torch.float64)
    paths = EqualSteps(steps=4).draw(heat(diffusion=matrix), X0, 0.5, 20_000, seeded())
    covariance = paths.noise[2].T.cov() / 0.25
    # Of n normal numbers a covariance has the relative standard error sqrt(2 / n), here 0.01; entries are up to 9.
    torch.testing.assert_close(covariance, matrix @ matrix.T, atol=0.4, rtol=0)
    assert float((paths.noise[0] * paths.noise[1]).mean()) == pytest.approx(0.0, abs=4 * 9 * 0.25 / math.sqrt(20_000))


@pytest.mark.parametrize("sampler", [EqualSteps, BySolver])
def test_no_step_is_refused(sampler):
    with pytest.raises(ValueError, match="`steps` must be at least 1"):
        sampler(steps=0)


MATRIX = torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.0, 3.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    "diffusion",
    [2.0, MATRIX, lambda t, x: t + 0.5 * x, lambda t, x: torch.stack([x, t + 0 * x], -1)],
    ids=["number", "matrix", "diagonals", "matrices"],
)
def test_the_euler_maruyama_steps_of_a_solve_are_drift_and_the_noise_that_it_saw(diffusion):
    pde = heat(drift=lambda t, x: torch.cos(t) - x, diffusion=diffusion)
    paths = BySolver(method=EulerMaruyama(), steps=5).draw(pde, X0, 0.5, 4, seeded())
    h = 0.2
    torch.testing.assert_close(paths.xs[1:], paths.states + h * (torch.cos(paths.times) - paths.states) + paths.noise)
    assert torch.equal(paths.xs[0], X0.expand(4, 3))


@pytest.mark.parametrize(("method", "diffusion"), [(SOSRA(), 2.0), (LambaEM(), MATRIX), (None, 2.0)])
def test_an_adaptive_solve_leaves_states_and_noise_of_one_path(method, diffusion):
    # With constant coefficients a state is the sum of what came before, whatever the steps.
    paths = BySolver(method=method, steps=4).draw(heat(diffusion=diffusion), X0, 0.5, 6, seeded())
    torch.testing.assert_close(paths.xs[1:], paths.states + 0.25 * 0.5 + paths.noise)


@pytest.mark.parametrize("method", [SOSRI(), Milstein()])
def test_better_methods_follow_geometric_brownian_motion_along_their_noise(method):
    pde = heat(drift=lambda t, x: 0.1 * x, diffusion=lambda t, x: 0.2 * x)
    sampler = BySolver(method=method, steps=50, rtol=1e-3, atol=1e-3)
    paths = sampler.draw(pde, X0, 0.5, 20, seeded())
    w = (paths.noise / (0.2 * paths.states)).sum(0)
    exact = X0 * torch.exp((0.1 - 0.02) * 1.0 + 0.2 * w)
    # Strong order 1 of Milstein: 0.2^2 / 50 of the state; Euler-Maruyama would be off by 0.2^2 / 50^0.5 = 0.6 %.
    assert float((paths.end / exact - 1).abs().mean()) < 1e-3


def test_a_weak_method_stands_underneath_too():
    paths = BySolver(method=RI1(), steps=8).draw(
        heat(drift=0.0, diffusion=lambda t, x: torch.stack([x, t + 0 * x], -1)), X0, 0.5, 4000, seeded()
    )
    # A martingale; its standard error is 3 / 4000^0.5.
    torch.testing.assert_close(paths.end.mean(0), X0, atol=0.2, rtol=0)


def test_one_seed_gives_the_same_solved_paths():
    sampler = BySolver(method=LambaEM(), steps=3)
    one, same, other = (sampler.draw(heat(), X0, 0.5, 4, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.xs, same.xs)
    assert not torch.equal(one.xs, other.xs)


def test_a_path_that_explodes_is_an_error_of_the_solve():
    with pytest.raises(SolveError):
        BySolver(method=EulerMaruyama(), steps=5).draw(heat(drift=lambda t, x: 1e9 * x**9), X0, 0.5, 4, seeded())


@pytest.mark.parametrize(("method", "iterations"), [(EulerMaruyama(), 30), (SOSRI(), 6)])
def test_an_equation_is_solved_along_paths_of_any_method(method, iterations):
    equation = black_scholes_barenblatt(2)
    paths = BySolver(method=method, steps=10, rtol=0.03, atol=0.03)
    deep = DeepBSDE(paths=paths, training=Training(iterations=iterations, paths=64))
    solution = solve(equation.pde, equation.x0, deep, estimation_paths=256, generator=seeded())
    # The driver in ten steps: 0.01.
    assert solution.u0 == pytest.approx(equation.value, abs=4 * solution.standard_error + 0.01)
    assert solution.standard_error < 0.1
