"""The Radau IIA method of order 5: coefficients, order, stability, error estimate, dense output, derivatives."""

import math

import numpy as np
import pytest
import torch

from ude.methods import Method, RadauIIA5
from ude.methods.method import IteratingMethod
from ude.methods.radau import COMPLEX_EIGENVALUE, ERROR, REAL_EIGENVALUE, A, C
from ude.methods.rooted_trees import density, elementary_weights, trees
from ude.nonlinear import GMRES

F64 = torch.float64
METHOD = RadauIIA5()
# Coefficients are rounded to 1e-16.
ROUNDING = 1e-14


def growth(t, y):
    return y * torch.cos(t)[:, None]


def numbers(*values, dtype=F64):
    return torch.tensor(values, dtype=dtype)


def slope_of(errors, lengths):
    return np.polyfit(np.log(lengths), np.log(errors), 1)[0]


def root_mean_square(values):
    return math.sqrt(sum(value**2 for value in values) / len(values))


@torch.no_grad()
def march(f, exact, n, end):
    """Relative errors of n constant steps over [0, end] from the exact solution, and the error estimates."""
    y, dt, h = exact(numbers(0.0))[:, None], numbers(end / n), end / n
    carry, errors, estimates = METHOD.init(f, numbers(0.0), y), [], []
    for i in range(n):
        result = METHOD.step(f, numbers(i * h), dt, y, carry)
        y, carry = result.y1, result.carry
        errors.append((y[0, 0] / exact(numbers((i + 1) * h))[0] - 1).item())
        estimates.append(result.error.item())
    return errors, estimates


def test_coefficients_are_those_of_the_book():
    # Hairer and Wanner II, table IV.5.6.
    r = math.sqrt(6)
    book = [
        [(88 - 7 * r) / 360, (296 - 169 * r) / 1800, (-2 + 3 * r) / 225],
        [(296 + 169 * r) / 1800, (88 + 7 * r) / 360, (-2 - 3 * r) / 225],
        [(16 - r) / 36, (16 + r) / 36, 1 / 9],
    ]
    np.testing.assert_allclose(A, book, rtol=0, atol=ROUNDING)
    eigenvalues = np.linalg.eigvals(np.array(A))
    for value in (REAL_EIGENVALUE, COMPLEX_EIGENVALUE, COMPLEX_EIGENVALUE.conjugate()):
        assert min(abs(eigenvalues - value)) < ROUNDING


@pytest.mark.parametrize("n", range(1, 6))
def test_satisfies_the_order_conditions(n):
    for tree in trees(n):
        assert np.dot(A[-1], elementary_weights(tree, A)) == pytest.approx(1 / density(tree), abs=ROUNDING)


def test_has_stage_order_three_and_an_estimate_of_order_three():
    a, c = np.array(A), np.array(C)
    for k in (1, 2, 3):
        np.testing.assert_allclose(a @ c ** (k - 1), c**k / k, rtol=0, atol=ROUNDING)
        # The estimate integrates polynomials of degree 2 to zero; the slope at the start takes part in the first one.
        assert np.dot(ERROR, c ** (k - 1)) + (k == 1) * REAL_EIGENVALUE == pytest.approx(0.0, abs=ROUNDING)


def test_is_stable_in_the_whole_left_half_plane_and_damps_infinitely_stiff_rates():
    a = np.array(A)

    def gain(z):
        return abs(1 + z * a[-1] @ np.linalg.solve(np.eye(3) - z * a, np.ones(3)))

    # With poles on the right, the largest gain on the left is that on the imaginary axis. At 1e6 six digits are left.
    assert max(gain(1j * omega) for omega in np.logspace(-3, 6, 400)) <= 1 + 1e-9
    # 1 - b A^-1 1
    assert 1 - a[-1] @ np.linalg.solve(a, np.ones(3)) == pytest.approx(0.0, abs=ROUNDING)


def test_converges_at_its_stated_order():
    # y' = y cos t, y = exp(sin t): the explicit time catches wrong nodes c.
    steps = (20, 30, 40, 60)
    marches = [march(growth, lambda t: torch.exp(torch.sin(t)), n, 10.0) for n in steps]
    lengths = [10.0 / n for n in steps]
    assert slope_of([root_mean_square(errors) for errors, _ in marches], lengths) == pytest.approx(5, abs=0.15)
    finer = (60, 90, 120)
    estimates = [march(growth, lambda t: torch.exp(torch.sin(t)), n, 10.0)[1] for n in finer]
    assert slope_of([root_mean_square(x) for x in estimates], [10.0 / n for n in finer]) == pytest.approx(4, abs=0.15)


def test_on_a_very_stiff_problem_the_order_falls_to_that_of_the_stages():
    # Prothero and Robinson: y' = -(y - g) / eps + g' with steps long against eps; the error is about eps dt^3.
    eps = 1e-5

    def f(t, y):
        t = t[:, None]
        return -(y - torch.sin(t + 1)) / eps + torch.cos(t + 1)

    steps = (4, 6, 8, 12)
    worst = [max(map(abs, march(f, lambda t: torch.sin(t + 1), n, 1.0)[0])) for n in steps]
    assert slope_of(worst, [1.0 / n for n in steps]) == pytest.approx(3, abs=0.3)
    assert worst[0] < eps * 0.25**3


def test_dense_output_is_the_collocation_polynomial():
    theta = numbers(*C, 0.0)
    weights = METHOD.dense_weights(theta).T.numpy()
    np.testing.assert_allclose(weights, [*A, [0.0, 0.0, 0.0]], rtol=0, atol=ROUNDING)
    _, slopes = torch.func.jvp(METHOD.dense_weights, (theta,), (torch.ones_like(theta),))
    np.testing.assert_allclose(slopes.T[:3], np.eye(3), rtol=0, atol=5 * ROUNDING)


def test_dense_output_has_the_stated_order():
    starts, theta = torch.arange(0.0, 10.0, 0.25, dtype=F64), torch.linspace(0.05, 0.95, 5, dtype=F64)
    y = torch.exp(torch.sin(starts))[:, None]
    lengths, errors = (0.2, 0.1, 0.05), []
    for h in lengths:
        dt = torch.full_like(starts, h)
        with torch.no_grad():
            result = METHOD.step(growth, starts, dt, y, METHOD.init(growth, starts, y))
        states = y[:, 0] + h * torch.einsum(
            "sj,sb->jb", METHOD.dense_weights(theta), torch.stack(result.stages)[..., 0]
        )
        errors.append((states / torch.exp(torch.sin(starts + theta[:, None] * h)) - 1).norm().item())
    assert slope_of(errors, lengths) == pytest.approx(4, abs=0.15)


def test_is_a_method_with_a_readable_name():
    assert isinstance(METHOD, Method)
    assert isinstance(METHOD, IteratingMethod)
    assert str(METHOD) == "RadauIIA5"
    assert RadauIIA5() == METHOD
    assert hash(METHOD) == hash(RadauIIA5())


def test_each_sample_has_its_own_time_and_step():
    t, dt, y = numbers(0.0, 1.0, 2.0), numbers(0.1, -0.2, 0.0), torch.rand(3, 2, dtype=F64)
    together = METHOD.step(growth, t, dt, y, METHOD.init(growth, t, y))
    for i in range(3):
        one = slice(i, i + 1)
        alone = METHOD.step(growth, t[one], dt[one], y[one], METHOD.init(growth, t[one], y[one]))
        # The same operations on other shapes: equal to rounding.
        torch.testing.assert_close(together.y1[one], alone.y1, rtol=1e-15, atol=0.0)
    assert torch.equal(together.y1[2], y[2])


def test_the_first_guess_continues_the_polynomial_of_the_step_before():
    calls = []

    def parabola(t, y):
        calls.append(y)
        return (1.0 - 2.0 * t + 3.0 * t**2)[:, None] + 0.0 * y

    t, dt, y = numbers(0.3), numbers(0.1), numbers(2.0)[:, None]
    with torch.no_grad():
        first = METHOD.step(parabola, t, dt, y, METHOD.init(parabola, t, y))
        calls.clear()
        second = METHOD.step(parabola, t + dt, 2.5 * dt, first.y1, first.carry)
    # The pass for the Jacobian comes first, then the three stages of the first iteration, which are right already.
    for guess, row in zip(calls[1:4], A, strict=True):
        stage = first.y1 + 0.25 * sum(a * k for a, k in zip(row, second.stages, strict=True))
        torch.testing.assert_close(guess, stage, rtol=1e-13, atol=0.0)


def test_keeps_single_precision():
    t, dt, y = numbers(0.3), numbers(0.1), torch.ones(1, 2)
    result = METHOD.step(lambda t, y: -(y**2), t, dt, y, METHOD.init(lambda t, y: -(y**2), t, y))
    assert {x.dtype for x in (result.y1, result.error, *result.stages, *result.carry)} == {torch.float32}
    torch.testing.assert_close(result.y1, 1 / (1 + 0.1 / y), rtol=1e-6, atol=0.0)


def field(rate, t, y):
    return torch.stack([y[:, 1] * torch.cos(t), -rate * y[:, 0] ** 3 - y[:, 1] + y[:, 0] * torch.sin(t)], -1)


@pytest.mark.parametrize("method", [METHOD, RadauIIA5(linear_solver=GMRES(rtol=1e-14))], ids=["LU", "GMRES"])
def test_everything_a_step_returns_differentiates(method):
    def everything(t, y, rate, dt):
        def f(t, y):
            return field(rate, t, y)

        result = method.step(f, t, dt, y, method.init(f, t, y))
        return result.y1, result.error, result.stiffness if method is METHOD else result.y1, *result.stages

    inputs = (numbers(0.3, 0.4), torch.tensor([[0.9, 1.2], [-0.7, 0.4]], dtype=F64), numbers(2.5), numbers(0.1, 0.15))
    inputs = tuple(x.clone().requires_grad_() for x in inputs[:3]) + inputs[3:]
    assert torch.autograd.gradcheck(everything, inputs, rtol=1e-5, atol=1e-6)


def test_the_matrix_free_solver_makes_the_same_step():
    t, dt, y, rate = numbers(0.3, 0.4), numbers(0.1, 0.15), torch.rand(2, 2, dtype=F64), numbers(2.5)
    f = lambda t, y: field(rate, t, y)  # noqa: E731
    direct, free = (m.step(f, t, dt, y, m.init(f, t, y)) for m in (METHOD, RadauIIA5(linear_solver=GMRES())))
    torch.testing.assert_close(free.y1, direct.y1, rtol=1e-11, atol=1e-12)
    assert free.stiffness is None


def test_a_sample_whose_iteration_fails_is_nan_alone():
    # The square root of a negative state leaves its domain.
    t, dt, y = numbers(0.0, 0.0), numbers(5.0, 0.1), numbers(1.0, 1.0)[:, None]
    f = lambda t, y: -2.0 * torch.sqrt(y)  # noqa: E731
    result = METHOD.step(f, t, dt, y, METHOD.init(f, t, y))
    assert result.y1.isnan().tolist() == [[True], [False]]
    # y = (1 - t)^2
    assert result.y1[1].item() == pytest.approx(0.81, abs=1e-8)


def test_a_complex_state_is_refused():
    t, dt, y = numbers(0.3), numbers(0.1), torch.ones(1, 2, dtype=torch.complex128)
    with pytest.raises(ValueError, match="Expected a real state"):
        METHOD.step(lambda t, y: -y, t, dt, y, METHOD.init(lambda t, y: -y, t, y))
