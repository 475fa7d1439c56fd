"""Every tableau against the order conditions of all rooted trees, and against other tables."""

import numpy as np
import pytest
import scipy.integrate

from ude.methods import BS3, EXPLICIT, Dopri5
from ude.methods.rooted_trees import density, elementary_weights, trees

# Coefficients are rounded to 1e-16 and reach 200 in the stages and 1200 in the dense output of order 7.
ROUNDING = 5e-13
# Below this a condition of the next order would count as satisfied, and the stated order as too low.
VIOLATED = 5e-6
# Verner publishes one parameter of his interpolant to nine digits; see the note in its table.
DENSE_ROUNDING = {"Vern7": 3e-7}

ESTIMATING = [method for method in EXPLICIT if method.tableau.b_err is not None]


def residual(a, weights, n, theta=1.0):
    """Largest residual of the conditions of order exactly n."""
    return max(abs(np.dot(weights, elementary_weights(tree, a)) - theta**n / density(tree)) for tree in trees(n))


def dense_weights(tableau, theta):
    return [sum(x * theta ** (j + 1) for j, x in enumerate(row)) for row in tableau.dense]


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_rows_sum_to_the_nodes(method):
    tableau = method.tableau
    for row, node in zip((*tableau.a, *tableau.extra_a), (*tableau.c, *tableau.extra_c), strict=True):
        assert sum(row) == pytest.approx(node, abs=ROUNDING)


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_the_solution_has_its_order_and_no_more(method):
    tableau = method.tableau
    for n in range(1, method.order + 1):
        assert residual(tableau.a, tableau.b, n) < ROUNDING
    assert residual(tableau.a, tableau.b, method.order + 1) > VIOLATED


@pytest.mark.parametrize("method", ESTIMATING, ids=str)
def test_the_embedded_solution_has_its_order_and_no_more(method):
    tableau = method.tableau
    embedded = np.subtract(tableau.b, tableau.b_err)
    for n in range(1, tableau.embedded_order + 1):
        assert residual(tableau.a, embedded, n) < ROUNDING
    assert residual(tableau.a, embedded, tableau.embedded_order + 1) > VIOLATED
    assert method.error_order == tableau.embedded_order + 1


@pytest.mark.parametrize("theta", [0.0, 0.1, 0.37, 0.5, 0.81, 1.0])
@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_dense_output_satisfies_the_continuous_order_conditions(method, theta):
    tableau = method.tableau
    a = (*tableau.a, *tableau.extra_a)
    for n in range(1, tableau.dense_order + 1):
        bound = DENSE_ROUNDING.get(str(method), ROUNDING) if n == 7 else ROUNDING
        assert residual(a, dense_weights(tableau, theta), n, theta) < bound


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_stability_size_is_where_the_stability_function_leaves_the_unit_disc(method):
    tableau = method.tableau
    stages = len(tableau.b)
    a = np.zeros((stages, stages))
    for i, row in enumerate(tableau.a):
        a[i, :i] = row

    def growth(z):
        return abs(1 + z * np.dot(tableau.b, np.linalg.solve(np.eye(stages) - z * a, np.ones(stages))))

    # The sizes are given to four or five digits.
    assert all(growth(-x) <= 1 + 1e-12 for x in np.linspace(0.0, 0.999 * method.stability_size, 200))
    assert growth(-1.001 * method.stability_size) > 1


@pytest.mark.parametrize(("method", "reference"), [(BS3(), scipy.integrate.RK23), (Dopri5(), scipy.integrate.RK45)])
def test_coefficients_are_those_of_scipy(method, reference):
    tableau = method.tableau
    used = len(reference.B)
    for i in range(used):
        np.testing.assert_allclose(tableau.a[i], reference.A[i, :i], rtol=1e-14)
    np.testing.assert_allclose(tableau.b[:used], reference.B, rtol=1e-14)
    np.testing.assert_allclose(tableau.c[:used], reference.C, rtol=1e-14)
    # Differences of rounded fractions.
    np.testing.assert_allclose(np.negative(tableau.b_err), reference.E, atol=1e-15)
    width = min(reference.P.shape[1], len(tableau.dense[0]))
    np.testing.assert_allclose(np.array(tableau.dense)[:, :width], reference.P[:, :width], atol=1e-14)
