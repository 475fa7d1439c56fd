"""States at rest against closed forms, and their gradients."""

import pytest
import torch

import ude
from ude import SteadyStateProblem, solve_steady_state


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_a_chemical_equilibrium_is_found_with_its_gradient():
    # A <-> B -> C with inflow k: a = k (k2 + k3) / (k1 k3), b = k / k3.
    rates = double(2.0, 0.5, 3.0, 1.5).requires_grad_()

    def field(t, y, p):
        inflow, k1, k2, k3 = p
        a, b = y
        return torch.stack([inflow - k1 * a + k2 * b, k1 * a - k2 * b - k3 * b])

    def closed(p):
        inflow, k1, k2, k3 = p
        return torch.stack([inflow * (k2 + k3) / (k1 * k3), inflow / k3])

    solution = solve_steady_state(SteadyStateProblem(field, double(0.0, 0.0), p=rates))
    torch.testing.assert_close(solution.y, closed(rates), rtol=1e-12, atol=0)
    for i in range(2):
        ours = torch.autograd.grad(solution.y[i], rates, retain_graph=True)[0]
        theirs = torch.autograd.grad(closed(rates)[i], rates)[0]
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)
    assert bool(solution.success)
    assert float(solution.residual) <= 1.0


def test_the_stable_state_of_the_basin_is_found_for_every_sample():
    # y' = y - y^3: 0 is unstable, -1 and 1 are stable.
    problem = SteadyStateProblem(lambda t, y: y - y**3, double(0.01, -0.3, 7.0).unsqueeze(-1), batched=True)
    torch.testing.assert_close(solve_steady_state(problem).y[:, 0], double(1.0, -1.0, 1.0), rtol=1e-12, atol=0)


def test_stiff_and_nested_states_work():
    k = double(1e6).squeeze().requires_grad_()
    start = {"fast": double(1.0), "slow": double(5.0)}

    def field(t, s):
        return {"fast": k * (s["slow"] ** 2 - s["fast"]), "slow": 2.0 - s["slow"]}

    y = solve_steady_state(SteadyStateProblem(field, start)).y
    torch.testing.assert_close(y["fast"], double(4.0), rtol=1e-10, atol=0)
    torch.testing.assert_close(y["slow"], double(2.0), rtol=1e-10, atol=0)


def test_what_does_not_come_to_rest_fails_with_the_reason():
    oscillator = SteadyStateProblem(lambda t, y: torch.stack([y[1], -y[0]]), double(1.0, 0.0))
    grows = SteadyStateProblem(lambda t, y: 1.0 + y**2, double(0.0))
    with pytest.raises(ude.SolveError, match="did not come to rest"):
        solve_steady_state(grows)
    # Newton's method would find the rest at zero, to which the trajectory never comes.
    found = solve_steady_state(oscillator, max_time=10.0, throw=False)
    assert bool(found.success) == bool(torch.linalg.vector_norm(found.y) < 1e-8)


def test_a_conserved_quantity_has_no_derivative_and_says_so():
    k = double(1.0).squeeze().requires_grad_()
    problem = SteadyStateProblem(
        lambda t, y: torch.stack([-k * y[0] + 2 * y[1], k * y[0] - 2 * y[1]]), double(1.0, 0.0)
    )
    y = solve_steady_state(problem).y
    torch.testing.assert_close(y.detach(), double(2 / 3, 1 / 3), rtol=1e-8, atol=0)
    with pytest.raises(ValueError, match="singular"):
        y[0].backward()
