"""ESDIRK methods: tableaus, order, stability, error estimate, dense output, derivatives."""

import math
import re

import numpy as np
import pytest
import torch

from ude.methods import ESDIRK, ESDIRKS, TRBDF2, DiagonalTableau, Kvaerno3, Kvaerno4, Kvaerno5, Method, Tolerances
from ude.methods.method import IteratingMethod
from ude.methods.rooted_trees import density, elementary_weights, trees
from ude.nonlinear import GMRES, Newton

F64 = torch.float64
# Coefficients are rounded to 1e-16, those of the dense output reach 4.
ROUNDING = 2e-14
# Below this a condition of the next order would count as satisfied, and the stated order as too low.
VIOLATED = 1e-3
STEPS = {2: (40, 80, 160), 3: (40, 80, 160), 4: (40, 60, 80, 120), 5: (40, 60, 80)}


def growth(t, y):
    return y * torch.cos(t)[:, None]


def numbers(*values, dtype=F64):
    return torch.tensor(values, dtype=dtype)


def matrix(tableau):
    a = np.zeros((len(tableau.a), len(tableau.a)))
    for i, row in enumerate(tableau.a):
        a[i, : i + 1] = row
    return a


def residual(tableau, weights, n, theta=1.0):
    """Largest residual of the conditions of order exactly n."""
    return max(
        abs(np.dot(weights, elementary_weights(tree, tableau.a)) - theta**n / density(tree)) for tree in trees(n)
    )


def slope_of(errors, lengths):
    return np.polyfit(np.log(lengths), np.log(errors), 1)[0]


@torch.no_grad()
def march(method, f, exact, n, end):
    """States and error estimates of n constant steps over [0, end] from the exact solution, as relative errors."""
    y, dt, h = exact(numbers(0.0))[:, None], numbers(end / n), end / n
    carry, errors, estimates = method.init(f, numbers(0.0), y), [], []
    for i in range(n):
        result = method.step(f, numbers(i * h), dt, y, carry)
        y, carry = result.y1, result.carry
        errors.append((y[0, 0] / exact(numbers((i + 1) * h))[0] - 1).item())
        estimates.append(result.error.item())
    return errors, estimates


def root_mean_square(values):
    return math.sqrt(sum(value**2 for value in values) / len(values))


@pytest.mark.parametrize("method", ESDIRKS, ids=str)
def test_the_solution_has_its_order_and_no_more(method):
    tableau = method.tableau
    for n in range(1, method.order + 1):
        assert residual(tableau, tableau.b, n) < ROUNDING
    assert residual(tableau, tableau.b, method.order + 1) > VIOLATED


@pytest.mark.parametrize("method", ESDIRKS, ids=str)
def test_the_embedded_solution_has_its_order_and_no_more(method):
    tableau = method.tableau
    embedded = np.subtract(tableau.b, tableau.b_err)
    for n in range(1, tableau.embedded_order + 1):
        assert residual(tableau, embedded, n) < ROUNDING
    assert residual(tableau, embedded, tableau.embedded_order + 1) > VIOLATED


@pytest.mark.parametrize("theta", [0.0, 0.1, 0.37, 0.5, 0.81, 1.0])
@pytest.mark.parametrize("method", ESDIRKS, ids=str)
def test_dense_output_satisfies_the_continuous_order_conditions(method, theta):
    weights = method.dense_weights(numbers(theta))[:, 0].numpy()
    for n in range(1, method.dense_order + 1):
        assert residual(method.tableau, weights, n, theta) < ROUNDING
    assert method.dense_order >= method.order - 1


@pytest.mark.parametrize("method", ESDIRKS, ids=str)
def test_is_stable_in_the_whole_left_half_plane_and_damps_infinitely_stiff_rates(method):
    a = matrix(method.tableau)

    def gain(z):
        return abs(1 + z * a[-1] @ np.linalg.solve(np.eye(len(a)) - z * a, np.ones(len(a))))

    # With poles on the right, the largest gain on the left is that on the imaginary axis. At 1e6 six digits are left.
    assert max(gain(1j * omega) for omega in np.logspace(-3, 6, 400)) <= 1 + 1e-9
    assert abs(method.tableau.gain_at_infinity) < ROUNDING
    assert gain(-1e6) < 1e-4


@pytest.mark.parametrize("method", ESDIRKS, ids=str)
def test_converges_at_its_stated_order(method):
    # y' = y cos t, y = exp(sin t): the explicit time catches wrong nodes c.
    steps = STEPS[method.order]
    marches = [march(method, growth, lambda t: torch.exp(torch.sin(t)), n, 5.0) for n in steps]
    lengths = [5.0 / n for n in steps]
    assert slope_of([root_mean_square(errors) for errors, _ in marches], lengths) == pytest.approx(
        method.order, abs=0.15
    )
    estimated = slope_of([root_mean_square(estimates) for _, estimates in marches], lengths)
    assert estimated == pytest.approx(method.error_order, abs=0.15)


@pytest.mark.parametrize(("method", "order"), [(TRBDF2(), 2), (Kvaerno3(), 2), (Kvaerno5(), 2)], ids=str)
def test_on_a_very_stiff_problem_the_order_falls_to_that_of_the_stages(method, order):
    # Prothero and Robinson: y' = -(y - g) / eps + g' with steps long against eps; the error is about eps dt^2.
    eps = 1e-6

    def f(t, y):
        t = t[:, None]
        return -(y - torch.sin(t + 1)) / eps + torch.cos(t + 1)

    steps = (10, 20, 40)
    worst = [max(map(abs, march(method, f, lambda t: torch.sin(t + 1), n, 1.0)[0])) for n in steps]
    assert slope_of(worst, [1.0 / n for n in steps]) == pytest.approx(order, abs=0.35)
    assert worst[0] < 1e-2 * eps * 10


@pytest.mark.parametrize("method", ESDIRKS, ids=str)
def test_dense_output_has_the_stated_order_and_joins_smoothly(method):
    starts, theta = torch.arange(0.0, 10.0, 0.25, dtype=F64), torch.linspace(0.1, 0.9, 5, dtype=F64)
    y = torch.exp(torch.sin(starts))[:, None]
    lengths, errors = (0.2, 0.1, 0.05), []
    for h in lengths:
        dt = torch.full_like(starts, h)
        with torch.no_grad():
            result = method.step(growth, starts, dt, y, method.init(growth, starts, y))
        states = y[:, 0] + h * torch.einsum(
            "sj,sb->jb", method.dense_weights(theta), torch.stack(result.stages)[..., 0]
        )
        errors.append((states / torch.exp(torch.sin(starts + theta[:, None] * h)) - 1).norm().item())
    assert slope_of(errors, lengths) == pytest.approx(method.dense_order + 1, abs=0.15)
    ends, ones = numbers(0.0, 1.0), numbers(1.0, 1.0)
    values, slopes = torch.func.jvp(method.dense_weights, (ends,), (ones,))
    unit = torch.eye(len(values), dtype=F64)
    expected = torch.stack([torch.zeros_like(unit[0]), numbers(*method.tableau.b)], 1)
    torch.testing.assert_close(values, expected, rtol=0.0, atol=ROUNDING)
    torch.testing.assert_close(slopes, torch.stack([unit[0], unit[-1]], 1), rtol=0.0, atol=ROUNDING)


@pytest.mark.parametrize("method", ESDIRKS, ids=str)
def test_is_a_method_with_a_readable_name(method):
    assert isinstance(method, Method)
    assert isinstance(method, IteratingMethod)
    assert str(method) == type(method).__name__
    assert method == type(method)()
    assert hash(method) == hash(type(method)())


@pytest.mark.parametrize("method", [TRBDF2(), Kvaerno5()], ids=str)
def test_each_sample_has_its_own_time_and_step(method):
    t, dt, y = numbers(0.0, 1.0, 2.0), numbers(0.1, -0.2, 0.0), torch.rand(3, 2, dtype=F64)
    together = method.step(growth, t, dt, y, method.init(growth, t, y))
    for i in range(3):
        one = slice(i, i + 1)
        alone = method.step(growth, t[one], dt[one], y[one], method.init(growth, t[one], y[one]))
        # The same operations on other shapes: equal to rounding.
        torch.testing.assert_close(together.y1[one], alone.y1, rtol=1e-15, atol=0.0)
    assert torch.equal(together.y1[2], y[2])


@pytest.mark.parametrize("method", [TRBDF2(), Kvaerno5()], ids=str)
def test_a_stage_is_the_slope_of_the_field_at_the_end(method):
    t, dt, y = numbers(0.3), numbers(0.1), numbers(2.0)[:, None]
    result = method.step(growth, t, dt, y, method.init(growth, t, y))
    assert result.carry[0] is result.stages[-1]
    # The state is known to 2e-13 of its size, the slope to that over gamma dt.
    torch.testing.assert_close(result.carry[0], growth(t + dt, result.y1), rtol=1e-10, atol=0.0)


@pytest.mark.parametrize("method", [TRBDF2(), Kvaerno3()], ids=str)
def test_keeps_single_precision(method):
    t, dt, y = numbers(0.3), numbers(0.1), torch.ones(1, 2)
    result = method.step(lambda t, y: -(y**2), t, dt, y, (-(y**2),))
    assert {x.dtype for x in (result.y1, result.error, result.stiffness, *result.stages)} == {torch.float32}
    exact = 1 / (1 + 0.1 / y)
    torch.testing.assert_close(result.y1, exact, rtol=1e-3, atol=0.0)


def field(rate, t, y):
    return torch.stack([y[:, 1] * torch.cos(t), -rate * y[:, 0] ** 3 - y[:, 1] + y[:, 0] * torch.sin(t)], -1)


@pytest.mark.parametrize(
    ("method", "solver"),
    [
        (TRBDF2(), "LU"),
        (Kvaerno3(), "LU"),
        (Kvaerno5(), "LU"),
        (TRBDF2(), "GMRES"),
        pytest.param(Kvaerno5(), "GMRES", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_everything_a_step_returns_differentiates(method, solver):
    if solver == "GMRES":
        method = type(method)(linear_solver=GMRES(rtol=1e-14))

    def everything(t, y, rate, dt):
        def f(t, y):
            return field(rate, t, y)

        result = method.step(f, t, dt, y, method.init(f, t, y))
        return result.y1, result.error, *result.stages

    inputs = (numbers(0.3, 0.4), torch.tensor([[0.9, 1.2], [-0.7, 0.4]], dtype=F64), numbers(2.5), numbers(0.1, 0.15))
    inputs = tuple(x.clone().requires_grad_() for x in inputs[:3]) + inputs[3:]
    assert torch.autograd.gradcheck(everything, inputs, rtol=1e-5, atol=1e-6)


def test_the_matrix_free_solver_makes_the_same_step():
    t, dt, y, rate = numbers(0.3, 0.4), numbers(0.1, 0.15), torch.rand(2, 2, dtype=F64), numbers(2.5)
    f = lambda t, y: field(rate, t, y)  # noqa: E731
    direct, free = (m.step(f, t, dt, y, m.init(f, t, y)) for m in (Kvaerno3(), Kvaerno3(linear_solver=GMRES())))
    torch.testing.assert_close(free.y1, direct.y1, rtol=1e-11, atol=1e-12)
    assert free.stiffness is None


def test_stiffness_is_the_row_sum_norm_of_the_jacobian_and_differentiates():
    rate = numbers(3.0).requires_grad_()
    t, dt, y = numbers(0.0), numbers(0.1), numbers(1.0, 1.0)[None]
    stiffness = Kvaerno3().step(lambda t, y: -rate * y, t, dt, y, (-rate * y,)).stiffness
    assert stiffness.item() == 3.0
    assert torch.autograd.grad(stiffness.sum(), rate)[0].item() == 1.0


def test_a_sample_whose_iteration_fails_is_nan_alone():
    # The square root of a negative state leaves its domain.
    t, dt, y = numbers(0.0, 0.0), numbers(5.0, 0.1), numbers(1.0, 1.0)[:, None]
    f = lambda t, y: -2.0 * torch.sqrt(y)  # noqa: E731
    result = TRBDF2().step(f, t, dt, y, (f(t, y),))
    assert result.y1.isnan().tolist() == [[True], [False]]
    # y = (1 - t)^2
    assert result.y1[1].item() == pytest.approx(0.81, abs=1e-4)


def test_looser_tolerances_take_fewer_evaluations():
    t, dt, y, calls = numbers(0.0), numbers(0.5), numbers(0.5, 0.5)[None], []

    def f(t, y):
        calls.append(t)
        return field(2.0, t, y)

    counts, states = [], []
    for tolerance in (1e-2, 1e-10):
        calls.clear()
        tolerances = Tolerances(numbers(tolerance)[0], numbers(tolerance)[0])
        with torch.no_grad():
            states.append(Kvaerno5().step_within(f, t, dt, y, (f(t, y),), tolerances).y1)
        counts.append(len(calls))
    assert counts[0] < counts[1]
    # An error of the stages of 1 % of the tolerance, for each of the stages.
    assert (states[0] - states[1]).abs().max().item() < 6e-4


def test_a_complex_state_is_refused():
    t, dt, y = numbers(0.3), numbers(0.1), torch.ones(1, 2, dtype=torch.complex128)
    with pytest.raises(ValueError, match="Expected a real state"):
        Kvaerno3().step(lambda t, y: -y, t, dt, y, (-y,))


TRAPEZOID = {
    "name": "Trapezoid",
    "a": [[0.0], [0.5, 0.5]],
    "c": [0.0, 1.0],
    "order": 2,
    "b_err": [-0.5, 0.5],
    "embedded_order": 1,
}


def test_a_user_may_give_the_trapezoidal_rule():
    method = ESDIRK(DiagonalTableau(**TRAPEZOID), newton=Newton(max_iterations=20))
    assert (str(method), method.order, method.error_order, method.dense_order) == ("Trapezoid", 2, 2, 2)
    t, dt, y = numbers(0.0), numbers(1.0), numbers(1.0)[:, None]
    # (1 - 1/2) / (1 + 1/2)
    assert method.step(lambda t, y: -y, t, dt, y, (-y,)).y1.item() == pytest.approx(1 / 3, abs=1e-13)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": [[0.0], [1.0]]}, "row i of `a` must hold the i + 1 entries up to the diagonal"),
        ({"c": [1.0]}, "`c` and `b_err` must have one entry per stage, 2, got 1 and 2"),
        ({"a": [[0.5], [0.5, 0.5]]}, "the diagonal of `a` must be zero in the first row"),
        ({"c": [0.0, 0.5]}, "the last stage must lie at the end of the step"),
        ({"a": [[0.0], [0.25, 0.5]]}, "row 1 of `a` must sum to the node c[1] = 1.0"),
        ({"order": 3}, "weights `a[-1]` do not have order 3"),
        ({"b_err": [0.5, 0.5]}, "weights `a[-1] - b_err` do not have order 1"),
        ({"dense": [[0.5]], "dense_order": 1}, "one polynomial per stage, 2"),
        ({"dense": [[0.5], [0.5]]}, "come with `dense_order`"),
        ({"dense": [[0.5], [0.4]], "dense_order": 1}, "dense output must end at the solution"),
        ({"dense": [[0.5], [0.5]], "dense_order": 2}, "`dense at theta = 0.25` do not have order 2"),
    ],
)
def test_a_mistake_in_a_tableau_is_named(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DiagonalTableau(**{**TRAPEZOID, **changes})


def test_a_step_of_the_fourth_order_pair_is_that_of_its_paper():
    # The ten digits printed for the method 4/3a, as a check of those computed from its conditions.
    assert [round(x, 4) for x in Kvaerno4().tableau.a[2]] == [0.1672, -0.1429, 0.5728]
