import dataclasses

import pytest
import torch

from ude.ad import Rademacher
from ude.bsde import (
    SemilinearPDE,
    black_scholes_barenblatt,
    check_solution,
    hamilton_jacobi_bellman,
    residual_terms,
)


def seeded():
    return torch.Generator().manual_seed(0)


def misstated_hjb(dimension):
    """The driver of the squares of sigma^T grad u: twice the printed one."""
    equation = hamilton_jacobi_bellman(dimension)
    wrong = dataclasses.replace(equation.pde, f=lambda t, x, u, p: -2.0 * (p**2).sum(-1, keepdim=True))
    return dataclasses.replace(equation, pde=wrong)


def misstated_bsb(dimension):
    """The driver with its sign turned, as where the equation is written with f on the other side."""
    equation = black_scholes_barenblatt(dimension)
    pde = equation.pde
    return dataclasses.replace(equation, pde=dataclasses.replace(pde, f=lambda t, x, u, p: -pde.driver(t, x, u, p)))


@pytest.mark.parametrize("dimension", [10, 100])
@pytest.mark.parametrize("misstate", [misstated_hjb, misstated_bsb])
def test_a_misstated_driver_fails_the_check(misstate, dimension):
    equation = misstate(dimension)
    check = check_solution(equation.pde, equation.exact, equation.x0, points=16, generator=seeded())
    assert not check.is_solution
    assert check.relative_residual > 1e-3
    assert "does NOT solve" in str(check)


@pytest.mark.parametrize("misstate", [misstated_hjb, misstated_bsb])
def test_a_misstated_driver_fails_the_check_with_an_estimator_too(misstate):
    equation = misstate(10)
    right = {"hjb": hamilton_jacobi_bellman, "bsb": black_scholes_barenblatt}[equation.name](10)
    for e, expected in ((right, True), (equation, False)):
        probes = Rademacher(100, generator=seeded(), per_sample=True)
        check = check_solution(e.pde, e.exact, e.x0, points=32, estimator=probes, generator=seeded())
        assert check.is_solution is expected, str(check)


def test_a_wrong_terminal_value_fails_the_check():
    equation = black_scholes_barenblatt(4)
    wrong = dataclasses.replace(equation.pde, g=lambda x: 1.01 * (x**2).sum(-1, keepdim=True))
    check = check_solution(wrong, equation.exact, equation.x0, generator=seeded())
    assert check.relative_residual < 1e-13
    assert check.relative_terminal == pytest.approx(0.01 / 1.01, rel=1e-6)
    assert not check.is_solution


@pytest.mark.parametrize(
    ("drift", "diffusion"),
    [
        (0.0, 2.0),
        (lambda t, x: torch.sin(t) * x, lambda t, x: 1.0 + x**2),
        (torch.ones(2), lambda t, x: torch.stack([x, t * x.flip(-1), torch.ones_like(x)], -1)),
    ],
    ids=["number", "diagonal", "three noises"],
)
def test_every_term_is_that_of_finite_differences(drift, diffusion):
    # A function that is no solution, so that no term is hidden by another.
    def u(t, x):
        return torch.cos(t + x[..., :1]) * (1.0 + x[..., :1] * x[..., 1:] ** 3)

    t, x = torch.rand(5, 1).double(), torch.randn(5, 2).double()
    pde = SemilinearPDE(
        drift=drift,
        diffusion=diffusion,
        f=lambda t, x, u, p: u * p.prod(-1, keepdim=True),
        g=lambda x: x[..., :1],
        t1=1.0,
    )
    terms, _ = residual_terms(pde, u, t, x)
    h = 1e-4
    e = h * torch.eye(2).double()
    u_t = (u(t + h, x) - u(t - h, x)) / (2 * h)
    grad = torch.cat([(u(t, x + e[i]) - u(t, x - e[i])) / (2 * h) for i in range(2)], -1)
    hess = [
        [
            u(t, x + e[i] + e[j]) - u(t, x + e[i] - e[j]) - u(t, x - e[i] + e[j]) + u(t, x - e[i] - e[j])
            for j in range(2)
        ]
        for i in range(2)
    ]
    hess = torch.stack([torch.cat(row, -1) for row in hess], -2) / (4 * h**2)
    sigma = pde.diffusion_at(t, x).matrix(2)
    expected = {
        "u_t": u_t,
        "drift": (pde.drift_at(t, x) * grad).sum(-1, keepdim=True),
        "trace": 0.5 * (sigma @ sigma.mT * hess).sum((-2, -1)).unsqueeze(-1),
        "f": u(t, x) * grad.prod(-1, keepdim=True),
    }
    for name, term in expected.items():
        # Second differences lose eps / h^2 to rounding, about 1e-8 of the function.
        torch.testing.assert_close(terms[name], term, rtol=1e-5, atol=1e-5, msg=name)


def test_a_solution_that_does_not_move_has_no_residual():
    pde = SemilinearPDE(
        drift=1.0,
        diffusion=2.0,
        f=lambda t, x, u, p: torch.zeros_like(u),
        g=lambda x: torch.ones_like(x[..., :1]),
        t1=1.0,
    )
    constant = check_solution(pde, lambda t, x: torch.ones_like(x[..., :1]), torch.zeros(2))
    assert constant.relative_residual == 0.0
    assert constant.is_solution
    assert not check_solution(pde, lambda t, x: torch.zeros_like(x[..., :1]), torch.zeros(2)).is_solution


def test_points_are_reproduced_by_a_generator():
    equation = hamilton_jacobi_bellman(3)
    first, second = (
        check_solution(equation.pde, equation.exact, equation.x0, generator=seeded()).terminal for _ in range(2)
    )
    assert torch.equal(first, second)


def test_a_function_of_another_shape_is_refused():
    equation = hamilton_jacobi_bellman(3)
    with pytest.raises(ValueError, match="`u` must return one number per point"):
        check_solution(equation.pde, lambda t, x: x, equation.x0)
    with pytest.raises(ValueError, match="`points` must be at least 1"):
        check_solution(equation.pde, equation.exact, equation.x0, points=0)
