import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.sparse import diags
from scipy.stats import chi2, ncx2

from ude.ad import Orthogonal
from ude.bsde import (
    allen_cahn,
    black_scholes_barenblatt,
    burgers_type,
    check_solution,
    default_risk,
    different_rates,
    hamilton_jacobi_bellman,
    quadratic_gradient,
    reaction_diffusion,
    suite,
)

SOLVED = [e for e in suite() if e.exact is not None]
FAMILIES = [
    hamilton_jacobi_bellman,
    black_scholes_barenblatt,
    burgers_type,
    quadratic_gradient,
    reaction_diffusion,
]


def seeded():
    return torch.Generator().manual_seed(0)


def test_the_suite_has_eight_equations_of_which_five_are_solved():
    names = [e.name for e in suite()]
    assert len(set(names)) == 8
    assert len(SOLVED) == 5
    assert all(e.source and e.title for e in suite())


@pytest.mark.parametrize("equation", SOLVED, ids=lambda e: e.name)
def test_a_closed_form_solves_its_equation_and_takes_its_terminal_value(equation):
    check = check_solution(equation.pde, equation.exact, equation.x0, points=12, generator=seeded())
    # Rounding alone: no term is estimated.
    assert check.relative_residual < 1e-13, str(check)
    assert check.relative_terminal < 1e-13
    assert check.is_solution


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_closed_forms_hold_in_few_dimensions_too(family, dimension):
    equation = family(dimension)
    assert check_solution(equation.pde, equation.exact, equation.x0 + 0.3, points=12, generator=seeded()).is_solution


@pytest.mark.parametrize(("dimension", "value"), [(10, 2.157022), (30, 3.351223), (100, 4.590162), (1000, 6.906255)])
def test_the_value_of_hamilton_jacobi_bellman_is_that_of_a_chi_squared_integral(dimension, value):
    # At the origin x + sqrt(2) Z has squared length 2 chi^2_d.
    def integrand(q):
        return chi2.pdf(q, dimension) * 2.0 / (1.0 + 2.0 * q)

    wide = dimension + 12 * math.sqrt(2 * dimension) + 40
    mean = quad(integrand, 0.0, wide, epsabs=0, epsrel=1e-11, limit=500, points=[float(dimension)])[0]
    mine = hamilton_jacobi_bellman(dimension).value
    assert mine == pytest.approx(-math.log(mean), abs=1e-9)
    assert round(mine, 6) == value


@pytest.mark.parametrize(("t", "distance"), [(0.3, 1.0), (0.9, 3.0), (0.999, 0.1)])
def test_hamilton_jacobi_bellman_is_known_away_from_the_origin_too(t, distance):
    d, variance = 3, 2.0 * (1.0 - t)
    equation = hamilton_jacobi_bellman(d)
    x = torch.tensor([[distance, 0.0, 0.0]], dtype=torch.float64)
    mine = float(equation.exact(torch.full((1, 1), t, dtype=torch.float64), x))
    shift = distance**2 / variance
    spread = math.sqrt(2 * (d + 2 * shift))
    limits = (max(0.0, d + shift - 15 * spread), d + shift + 15 * spread)
    mean = quad(
        lambda q: ncx2.pdf(q, d, shift) * 2.0 / (1.0 + variance * q), *limits, epsabs=0, epsrel=1e-10, limit=500
    )
    assert mine == pytest.approx(-math.log(mean[0]), abs=1e-7)


@pytest.mark.parametrize(
    ("equation", "value"),
    [
        (black_scholes_barenblatt(), 77.10488),
        (black_scholes_barenblatt(30), 23.13146),
        (burgers_type(), 0.5),
        (quadratic_gradient(), 0.841471),
        (reaction_diffusion(), 1.6),
    ],
)
def test_closed_forms_have_their_published_values(equation, value):
    assert equation.value == pytest.approx(value, rel=1e-6)


def test_the_value_of_allen_cahn_is_that_of_its_radial_equation():
    # With s = |x|^2 the Laplacian is 4 s u'' + 2 d u'. From s = 0 the process gets to 60 +- 9 at T: beyond 200 nothing
    # is felt, and the boundary value is frozen there.
    d, n, far = 100, 2400, 200.0
    s, h = np.linspace(0.0, far, n + 1, retstep=True)

    def rate(t, u):
        first, second = np.zeros_like(u), np.zeros_like(u)
        first[1:-1] = (u[2:] - u[:-2]) / (2 * h)
        second[1:-1] = (u[2:] - 2 * u[1:-1] + u[:-2]) / h**2
        first[0] = (-3 * u[0] + 4 * u[1] - u[2]) / (2 * h)
        change = 4 * s * second + 2 * d * first + u - u**3
        change[-1] = 0.0
        return change

    pattern = diags([1.0, 1.0, 1.0, 1.0], [-1, 0, 1, 2], shape=(n + 1, n + 1))
    radial = solve_ivp(
        rate, (0.0, 0.3), 1 / (2 + 0.4 * s), method="Radau", jac_sparsity=pattern, rtol=1e-8, atol=1e-11, t_eval=[0.3]
    )
    # Second order in h: twice as many points change the value by 6e-8. The printed one is that of a Monte Carlo method.
    assert radial.y[0, -1] == pytest.approx(allen_cahn().value, abs=2e-7)
    assert radial.y[0, -1] == pytest.approx(0.052802, rel=5e-4)


@pytest.mark.parametrize("equation", [default_risk(), different_rates()], ids=lambda e: e.name)
def test_a_driver_that_depends_on_the_price_only_is_the_price_of_a_bond(equation):
    # A claim on a constant c has no gradient: u' = -f(t, x, u, 0), which discounts.
    x = equation.x0.expand(1, -1)
    t, u = x.new_zeros(1, 1), x.new_full((1, 1), 60.0)
    driver = float(equation.pde.driver(t, x, u, torch.zeros_like(x)))
    # Q(60) lies half-way between 0.2 and 0.02; the other one lends at 4 %.
    expected = -(0.11 / 3 + 0.02) * 60.0 if equation.name == "default-risk" else -0.04 * 60.0
    assert driver == pytest.approx(expected, rel=1e-12)


def test_borrowing_at_the_higher_rate_begins_where_the_stock_exceeds_the_price():
    pde = different_rates().pde
    x = torch.full((1, 100), 100.0, dtype=torch.float64)
    t, u = x.new_zeros(1, 1), x.new_full((1, 1), 20.0)
    for stock, rate in ((10.0, 0.04), (50.0, 0.06)):
        grad_u = torch.full_like(x, stock / 1e4)
        # Without the drift of the price, the drift of x is the rate: -R u + (R - mu) x . grad u.
        expected = -rate * 20.0 + (rate - 0.06) * stock
        assert float(pde.driver(t, x, u, grad_u)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dimension", [0, -1])
def test_a_dimension_below_one_is_refused(dimension):
    with pytest.raises(ValueError, match="`dimension` must be at least 1"):
        hamilton_jacobi_bellman(dimension)


def test_a_thousand_dimensions_are_checked_with_an_estimator():
    equation = hamilton_jacobi_bellman(1000)
    directions = Orthogonal(100, generator=seeded())
    check = check_solution(
        equation.pde, equation.exact, equation.x0, points=4, estimator=directions, generator=seeded()
    )
    assert check.is_solution, str(check)
    assert 0 < check.noise < 0.05
