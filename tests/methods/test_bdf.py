"""The numerical differentiation formulas: order, stability, history, choice of order, dense output, derivatives."""

import itertools
import math

import numpy as np
import pytest
import torch

from ude.ad import Linearisation
from ude.methods import BDF, Method, Tolerances
from ude.methods.bdf import ALPHA, ERROR, KAPPA
from ude.methods.method import IteratingMethod
from ude.nonlinear import GMRES

F64 = torch.float64
ORDERS = [1, 2, 3, 4, 5]
NUMBERS = {"order": 0, "length": 1, "equal": 2, "rate": 3}
"""Places in the second tensor of the carry."""


def numbers(*values, dtype=F64):
    return torch.tensor(values, dtype=dtype)


def growth(t, y):
    return y * torch.cos(t)[:, None]


def exact(t):
    return torch.exp(torch.sin(t))


def slope_of(errors, lengths):
    return np.polyfit(np.log(lengths), np.log(errors), 1)[0]


def differences(values):
    """Backward differences of the last of equidistant values."""
    rows = [values]
    while len(rows[-1]) > 1:
        rows.append(rows[-1].diff(dim=0))
    return torch.stack([row[-1] for row in rows])


def carry_of(solution, t, h, order, f):
    """The carry of a step of order k at t whose past lies on a known solution."""
    times = t + h * torch.arange(-order, 1, dtype=F64)
    past = differences(solution(times))
    rows = torch.zeros(8, 1, dtype=F64)
    rows[: order + 1, 0] = past
    flat, facts, matrix = BDF().init(f, numbers(t), past[:1, None])
    facts = facts.clone()
    facts[0, NUMBERS["order"]], facts[0, NUMBERS["length"]] = order, h
    return rows.reshape(1, -1).to(flat), facts, matrix


def with_order(carry, order):
    """Forbid a change of order: the count of equal steps starts again."""
    flat, facts, *rest = carry
    facts = facts.clone()
    facts[:, NUMBERS["order"]], facts[:, NUMBERS["equal"]] = order, 0.0
    return flat, facts, *rest


@torch.no_grad()
def march(order, n, end):
    """Relative errors of n constant steps of one order from an exact past, and error estimates."""
    h, carry = end / n, carry_of(exact, 0.0, end / n, order, growth)
    y, errors, estimates = exact(numbers(0.0))[:, None], [], []
    for i in range(n):
        result = BDF().step(growth, numbers(i * h), numbers(h), y, carry)
        y, carry = result.y1, with_order(result.carry, order)
        errors.append((y[0, 0] / exact(numbers((i + 1) * h))[0] - 1).item())
        estimates.append(result.error.item())
    return errors, estimates


def root_mean_square(values):
    return math.sqrt(sum(value**2 for value in values) / len(values))


@pytest.mark.parametrize("order", ORDERS)
def test_converges_at_its_stated_order(order):
    steps = (75, 150, 300) if order < 4 else (50, 75, 100, 150)
    marches = [march(order, n, 3.0) for n in steps]
    lengths = [3.0 / n for n in steps]
    assert slope_of([root_mean_square(errors) for errors, _ in marches], lengths) == pytest.approx(order, abs=0.15)
    estimated = slope_of([root_mean_square(estimates) for _, estimates in marches], lengths)
    assert estimated == pytest.approx(order + 1, abs=0.15)


@pytest.mark.parametrize("order", ORDERS)
def test_the_error_estimate_is_the_local_error(order):
    t, h = 0.3, 0.02 if order < 4 else 0.05
    y = exact(numbers(t))[:, None]
    result = BDF().step(growth, numbers(t), numbers(h), y, carry_of(exact, t, h, order, growth))
    error = result.y1.item() - exact(numbers(t + h)).item()
    # The corrector divides the error of the formula by alpha; with the sign of the difference.
    assert abs(result.error.item() / error) == pytest.approx(ALPHA[order], rel=0.4)


@pytest.mark.parametrize("order", ORDERS)
def test_coefficients_cancel_the_error_of_the_formula_as_published(order):
    # Order conditions: sum_j D_j / j - kappa gamma (D_{k+1} of the correction) integrates polynomials of degree k.
    gamma = sum(1.0 / j for j in range(1, order + 1))
    assert ALPHA[order] == pytest.approx((1 - KAPPA[order]) * gamma)
    assert ERROR[order] == pytest.approx(KAPPA[order] * gamma + 1 / (order + 1))


@pytest.mark.parametrize(("order", "angle"), [(1, 90), (2, 90), (3, 80), (4, 66), (5, 51)])
def test_is_stable_within_the_published_angle(order, angle):
    # The locus z of amplification factors w on the unit circle: Shampine and Reichelt, table 1.
    w = np.exp(1j * np.linspace(1e-3, np.pi, 4000))
    difference = 1 - 1 / w
    gamma = sum(1.0 / j for j in range(1, order + 1))
    z = sum(difference**j / j for j in range(1, order + 1)) - KAPPA[order] * gamma * difference ** (order + 1)
    left = z[z.real < -1e-9]
    seen = 90.0 if len(left) == 0 else np.degrees(np.min(np.abs(np.pi - np.abs(np.angle(left)))))
    # The angles are given in whole degrees.
    assert seen >= angle - 0.7


@pytest.mark.parametrize("order", ORDERS)
def test_damps_infinitely_stiff_rates(order):
    decay = lambda t, y: -1e9 * y  # noqa: E731
    with torch.no_grad():
        carry = carry_of(lambda t: torch.ones_like(t), 0.0, 1.0, order, decay)
        result = BDF().step(decay, numbers(0.0), numbers(1.0), numbers(1.0)[:, None], carry)
    assert abs(result.y1.item()) < 1e-8


@pytest.mark.parametrize("ratio", [0.2, 1.0, 1.7, 10.0])
@pytest.mark.parametrize("order", ORDERS)
def test_a_change_of_step_interpolates_the_past(order, ratio):
    # On a polynomial of the degree of the order every step is exact, whatever the lengths of steps before.
    polynomial = lambda t: 1.0 + t - 0.5 * t**2 * (order > 1) + 0.1 * t**order * (order > 2)  # noqa: E731

    def f(t, y):
        with torch.enable_grad():
            s = t.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(polynomial(s).sum(), s)
        return slope[:, None] + 0.0 * y

    t, h = 0.4, 0.1
    with torch.no_grad():
        carry = carry_of(polynomial, t, h, order, lambda t, y: torch.zeros_like(y))
        result = BDF(max_order=5).step(f, numbers(t), numbers(ratio * h), polynomial(numbers(t))[:, None], carry)
    # Continuing differences of order 5 over ten steps amplifies their rounding 1e5 times.
    assert result.y1.item() == pytest.approx(polynomial(numbers(t + ratio * h)).item(), rel=1e-10)
    theta = torch.linspace(0.0, 1.0, 5, dtype=F64)
    change = torch.einsum("sj,sb->jb", BDF().dense_weights(theta), torch.stack(result.stages)[..., 0])[:, 0]
    states = polynomial(numbers(t)) + ratio * h * change
    torch.testing.assert_close(states, polynomial(t + ratio * h * theta), rtol=1e-10, atol=0.0)


@pytest.mark.parametrize("order", ORDERS)
def test_dense_output_has_the_order_of_the_step(order):
    starts, theta = torch.arange(0.0, 6.0, 0.5), numbers(0.25, 0.5, 0.75)
    lengths, errors = (0.04, 0.02, 0.01) if order < 4 else (0.1, 0.07, 0.05), []
    for h in lengths:
        squares = []
        for t in starts.tolist():
            y = exact(numbers(t))[:, None]
            with torch.no_grad():
                result = BDF().step(growth, numbers(t), numbers(h), y, carry_of(exact, t, h, order, growth))
            change = torch.einsum("sj,sb->jb", BDF().dense_weights(theta), torch.stack(result.stages)[..., 0])[:, 0]
            squares.append((y[0] + h * change - exact(t + h * theta)).square().sum().item())
        errors.append(math.sqrt(sum(squares)))
    assert slope_of(errors, lengths) == pytest.approx(order + 1, abs=0.25)


def run(f, y, n, h, max_order=5, rtol=1e-6):
    """Follow the proposals of the method itself, refusing steps whose error is too large."""
    method, tolerances = BDF(max_order=max_order), Tolerances(numbers(rtol)[0], numbers(rtol)[0])
    t, dt, orders = torch.zeros_like(y[:, 0]), torch.full_like(y[:, 0], h), []
    with torch.no_grad():
        carry = method.init(f, t, y)
        for _ in range(n):
            result = method.step_within(f, t, dt, y, carry, tolerances)
            ratio = (result.error / (rtol + rtol * torch.maximum(y.abs(), result.y1.abs()))).square().mean(-1).sqrt()
            taken = ratio <= 1.0
            t, y = torch.where(taken, t + dt, t), torch.where(taken[:, None], result.y1, y)
            carry = tuple(torch.where(taken[:, None], a, b) for a, b in zip(result.carry, carry, strict=True))
            dt = dt * result.factor
            orders.append(carry[1][:, NUMBERS["order"]].tolist())
    return t, y, orders


def test_the_order_rises_where_the_solution_is_smooth_and_falls_where_it_is_not():
    smooth = lambda t, y: -(y - torch.sin(t)[:, None])  # noqa: E731
    _, _, orders = run(smooth, numbers(1.0)[:, None], 120, 1e-4, rtol=1e-8)
    assert orders[0] == [1.0]
    assert max(order[0] for order in orders) == 5.0
    # Every order is kept for one step more than its number at least.
    changes = [i for i in range(1, 120) if orders[i] != orders[i - 1]]
    assert all(b - a > orders[b - 1][0] for a, b in itertools.pairwise(changes))
    # A field with jumps lets no high order live.
    rough = lambda t, y: -(y - torch.sign(torch.sin(40.0 * t))[:, None])  # noqa: E731
    _, _, orders = run(rough, numbers(1.0)[:, None], 300, 1e-4)
    assert sum(order[0] for order in orders[50:]) / 250 < 2.5


def test_the_order_stays_below_the_one_allowed():
    smooth = lambda t, y: -(y - torch.sin(t)[:, None])  # noqa: E731
    for highest in (1, 2):
        _, _, orders = run(smooth, numbers(1.0)[:, None], 60, 1e-3, max_order=highest, rtol=1e-8)
        assert max(order[0] for order in orders) == highest


def test_every_sample_has_its_own_order_and_step():
    rates = numbers(1.0, 50.0, 2000.0)[:, None]

    def f(t, y, rates=rates):
        return -rates * (y - torch.sin(t)[:, None])

    y = torch.ones(3, 1, dtype=F64)
    t, together, orders = run(f, y, 40, 1e-4)
    assert len(set(orders[-1])) > 1 or len(set(t.tolist())) == 3
    for i in range(3):
        one = slice(i, i + 1)
        t_alone, alone, _ = run(lambda t, y, i=i: f(t, y, rates[i : i + 1]), y[one], 40, 1e-4)
        # The same operations on other shapes: equal to rounding, which choices of step could only enlarge.
        torch.testing.assert_close(t_alone, t[one], rtol=1e-10, atol=0.0)
        torch.testing.assert_close(alone, together[one], rtol=1e-10, atol=0.0)


def test_a_step_of_length_zero_stands_still():
    y = numbers(2.0, 3.0)[None]
    result = BDF().step(growth, numbers(1.0), numbers(0.0), y, BDF().init(growth, numbers(1.0), y))
    assert torch.equal(result.y1, y)
    assert torch.equal(result.error, torch.zeros_like(y))
    assert all(bool(stage.isfinite().all()) for stage in result.stages)


def test_runs_backwards_in_time():
    f = lambda t, y: -growth(-t, y)  # noqa: E731
    forward = run(f, numbers(1.0)[:, None], 30, 1e-3)
    t, y, _ = run(growth, numbers(1.0)[:, None], 30, -1e-3)
    torch.testing.assert_close(t, -forward[0], rtol=1e-10, atol=0.0)
    torch.testing.assert_close(y, forward[1], rtol=1e-10, atol=0.0)


def test_the_jacobian_is_kept_while_the_length_stays_the_same():
    matrices = []

    class Field:
        def __call__(self, t, y):
            return -(y**2)

        def linearise(self, t, y, *, rate):
            matrices.append(t)
            return Linearisation(self(t, y), torch.diag_embed(-2 * y), None)

    run(Field(), numbers(1.0, 2.0)[None], 60, 1e-3)
    # At the start, and about once for each of some 15 changes of length.
    assert len(matrices) < 30


def test_a_jacobian_that_is_out_of_date_is_made_anew_within_the_step():
    f = lambda t, y: -(y**3)  # noqa: E731
    y, h = numbers(2.0)[:, None], 0.05
    flat, facts, matrix = BDF().init(f, numbers(0.0), y)
    facts = facts.clone()
    facts[0, NUMBERS["length"]] = h
    carry = (torch.cat([flat[:, :1], h * flat[:, 1:]], 1), facts, -matrix)
    with torch.no_grad():
        result = BDF().step(f, numbers(0.0), numbers(h), y, carry)
    # Backward Euler of kappa_1: (1 - kappa) (y1 - guess) + (guess - y) = h f(y1).
    y1, guess = result.y1.item(), 2.0 - h * 8.0
    assert (1 - KAPPA[1]) * (y1 - guess) + guess - 2.0 == pytest.approx(-h * y1**3, rel=1e-10)
    assert result.carry[2].item() < 0.0


def field(rate, t, y):
    return torch.stack([y[:, 1] * torch.cos(t), -rate * y[:, 0] ** 3 - y[:, 1] + y[:, 0] * torch.sin(t)], -1)


@pytest.mark.parametrize("solver", ["LU", "GMRES"])
def test_several_steps_of_changing_length_differentiate(solver):
    method = BDF() if solver == "LU" else BDF(linear_solver=GMRES(rtol=1e-14))

    def everything(t, y, rate):
        def f(t, y):
            return field(rate, t, y)

        carry, results = method.init(f, t, y), []
        for h in (0.02, 0.02, 0.02, 0.03, 0.05) if solver == "LU" else (0.02, 0.03, 0.05):
            dt = h * numbers(1.0, 1.2)
            result = method.step(f, t, dt, y, carry)
            t, y, carry = t + dt, result.y1, result.carry
            results += [result.error, *result.stages[:2]]
        return y, *results

    inputs = (numbers(0.3, 0.4), torch.tensor([[0.9, 1.2], [-0.7, 0.4]], dtype=F64), numbers(2.5))
    inputs = tuple(x.clone().requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(everything, inputs, rtol=1e-5, atol=1e-6)


def test_is_a_method_with_a_readable_name():
    assert isinstance(BDF(), Method)
    assert isinstance(BDF(), IteratingMethod)
    assert (str(BDF()), str(BDF(max_order=2))) == ("BDF", "BDF(2)")
    assert BDF() == BDF()
    assert hash(BDF(max_order=3)) == hash(BDF(max_order=3))


def test_keeps_single_precision():
    f = lambda t, y: -(y**2)  # noqa: E731
    t, dt, y = numbers(0.3), numbers(0.01), torch.ones(1, 2)
    result = BDF().step(f, t, dt, y, BDF().init(f, t, y))
    assert {x.dtype for x in (result.y1, result.error, *result.stages, *result.carry)} == {torch.float32}
    assert result.factor.dtype == F64
    torch.testing.assert_close(result.y1, 1 / (1 + 0.01 / y), rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("order", [0, 6, 2.0, True])
def test_an_order_that_does_not_exist_is_refused(order):
    with pytest.raises(ValueError, match="`max_order` must be an integer from 1 to 5"):
        BDF(max_order=order)


def test_a_complex_state_is_refused():
    y = torch.ones(1, 2, dtype=torch.complex128)
    with pytest.raises(ValueError, match="Expected a real state"):
        BDF().init(lambda t, y: -y, numbers(0.3), y)
