"""The continuous extension of every explicit method."""

import math

import pytest
import torch

from ude.methods import EXPLICIT, Euler, Vern7

# Lengths of a step at which the error is asymptotic and stays above 1e-13.
LENGTHS = {
    1: (0.05, 0.025, 0.0125),
    2: (0.05, 0.025, 0.0125),
    3: (0.1, 0.05, 0.025),
    4: (0.1, 0.05, 0.025),
    7: (0.3, 0.2, 0.15, 0.1),
}


def growth(t, y):
    return y * torch.cos(t)[:, None]


def exact(t):
    return torch.exp(torch.sin(t))


def one_step(method, t, length, theta):
    """Dense states of one step from the exact solution at the times t, shape (theta, t), and the step."""
    dt, y = torch.full_like(t, length), exact(t)[:, None]
    result = method.step(growth, t, dt, y, method.init(growth, t, y))
    stages = torch.stack(method.dense_stages(growth, t, dt, y, result))[..., 0]
    return exact(t) + dt * torch.einsum("sj,sb->jb", method.dense_weights(theta), stages), result


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_its_local_error_has_the_stated_order(method):
    starts = torch.arange(0.0, 10.0, 0.1, dtype=torch.float64)
    theta = torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    lengths = LENGTHS[method.dense_order]
    errors = [
        (one_step(method, starts, h, theta)[0] / exact(starts + theta[:, None] * h) - 1).norm().item() for h in lengths
    ]
    x = [math.log(h) for h in lengths]
    y = [math.log(error) for error in errors]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
    assert slope == pytest.approx(method.dense_order + 1, abs=0.15)


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_is_of_an_order_that_does_not_lower_that_of_the_solution(method):
    assert method.dense_order >= method.order - 1


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_starts_at_the_state_and_ends_at_the_solution(method):
    start, ends = torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    states, result = one_step(method, start, 0.3, ends)
    assert torch.equal(states[0], exact(start))
    # Coefficients of up to 1200 cancel at the end of the step.
    torch.testing.assert_close(states[1], result.y1[:, 0], rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("method", [m for m in EXPLICIT if m != Euler()], ids=str)
def test_has_the_slopes_of_the_field_at_both_ends(method):
    start, ends = torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    ones = torch.ones_like(ends)
    states, rates = torch.func.jvp(lambda theta: one_step(method, start, 0.3, theta)[0], (ends,), (ones,))
    expected = 0.3 * growth(start + 0.3 * ends, states)
    # Derivatives of polynomials whose coefficients reach 1200.
    torch.testing.assert_close(rates, expected, rtol=1e-11, atol=0.0)


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_weights_have_the_shape_and_type_of_theta_behind_the_stages(method):
    theta = torch.rand(4, 3)
    weights = method.dense_weights(theta)
    assert weights.shape == (len(method.tableau.dense), 4, 3)
    assert weights.dtype == torch.float32


def test_weights_in_single_precision_are_rounded_only_once():
    theta = torch.linspace(0, 1, 11)
    exact = Vern7().dense_weights(theta.double())
    torch.testing.assert_close(Vern7().dense_weights(theta), exact.float(), rtol=0.0, atol=0.0)
