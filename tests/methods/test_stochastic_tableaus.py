"""The coefficients of stochastic Runge-Kutta methods against the conditions of strong order 1.5."""

import numpy as np
import pytest

from ude.methods.coefficients import sra, sri
from ude.methods.rooted_trees import density, elementary_weights, trees
from ude.methods.sra import SRA
from ude.methods.sri import SRI
from ude.methods.stochastic_tableau import SRATableau, SRITableau

SRIS = (sri.SRIW1, sri.SOSRI, sri.SOSRI2)
SRAS = (sra.SRA1, sra.SRA3, sra.SOSRA, sra.SOSRA2)

# Sixteen printed digits of coefficients up to 18, in sums of products of three.
ROUNDING = 3e-13

HEUN = {
    "name": "Heun with noise",
    "a0": [[], [3 / 4]],
    "b0": [[], [3 / 2]],
    "c0": [0.0, 3 / 4],
    "c1": [1.0, 0.0],
    "alpha": [1 / 3, 2 / 3],
    "beta1": [1.0, 0.0],
    "beta2": [-1.0, 1.0],
}


def name(tableau):
    return tableau.name


def square(rows, columns):
    """Return rows that leave out zeros as a matrix."""
    return np.array([[*row, *[0.0] * (columns - len(row))] for row in rows])


@pytest.mark.parametrize("tableau", SRIS, ids=name)
def test_a_method_for_diagonal_noise_satisfies_the_conditions_of_strong_order_three_halves(tableau):
    drifts, diffusions = len(tableau.alpha), len(tableau.beta1)
    a0, b0 = square(tableau.a0, drifts), square(tableau.b0, diffusions)
    a1, b1 = square(tableau.a1, drifts), square(tableau.b1, diffusions)
    alpha = np.array(tableau.alpha)
    betas = np.array([tableau.beta1, tableau.beta2, tableau.beta3, tableau.beta4])
    e0, e1 = np.ones(drifts), np.ones(diffusions)
    left = [
        a0 @ e0 - tableau.c0,
        a1 @ e0 - tableau.c1,
        alpha @ e0 - 1,
        alpha @ a0 @ e0 - 1 / 2,
        alpha @ b0 @ e1 - 1,
        alpha @ (b0 @ e1) ** 2 - 3 / 2,
        betas @ e1 - [1, 0, 0, 0],
        betas @ b1 @ e1 - [0, 1, 0, 0],
        betas @ a1 @ e0 - [1, 0, -1, 0],
        betas @ (b1 @ e1) ** 2 - [1, 0, -1, 2],
        betas @ b1 @ b1 @ e1 - [0, 0, 0, 1],
        (betas[0] / 2 + betas[2] / 3) @ a1 @ b0 @ e1,
    ]
    assert np.abs(np.hstack(left)).max() < ROUNDING
    assert np.hstack(left)[drifts + diffusions :].size == 25


@pytest.mark.parametrize("tableau", SRAS, ids=name)
def test_a_method_for_additive_noise_satisfies_the_conditions_of_strong_order_three_halves(tableau):
    drifts, diffusions = len(tableau.alpha), len(tableau.c1)
    a0, b0 = square(tableau.a0, drifts), square(tableau.b0, diffusions)
    alpha, beta1, beta2, c1 = map(np.array, (tableau.alpha, tableau.beta1, tableau.beta2, tableau.c1))
    e0, e1 = np.ones(drifts), np.ones(diffusions)
    left = [
        a0 @ e0 - tableau.c0,
        alpha @ e0 - 1,
        alpha @ a0 @ e0 - 1 / 2,
        alpha @ b0 @ e1 - 1,
        alpha @ (b0 @ e1) ** 2 - 3 / 2,
        beta1 @ e1 - 1,
        beta2 @ e1,
        beta1 @ c1 - 1,
        beta2 @ c1 + 1,
    ]
    assert np.abs(np.hstack(left)).max() < ROUNDING


@pytest.mark.parametrize("tableau", [*SRIS, *SRAS], ids=name)
def test_without_noise_the_method_has_its_order_and_no_more(tableau):
    def residual(n):
        return max(
            abs(np.dot(tableau.alpha, elementary_weights(tree, tableau.a0)) - 1 / density(tree)) for tree in trees(n)
        )

    assert tableau.drift_order == (3 if tableau.name == "SRA3" else 2)
    assert all(residual(n) < ROUNDING for n in range(1, tableau.drift_order + 1))
    assert residual(tableau.drift_order + 1) > 1e-3


@pytest.mark.parametrize("tableau", [*SRIS, *SRAS], ids=name)
def test_stability_size_is_where_the_stability_function_leaves_the_unit_interval(tableau):
    stages = len(tableau.alpha)
    a0 = square(tableau.a0, stages)

    def growth(z):
        return abs(1 + z * np.dot(tableau.alpha, np.linalg.solve(np.eye(stages) - z * a0, np.ones(stages))))

    # The sizes are given to five digits.
    assert all(growth(-x) <= 1 + 1e-12 for x in np.linspace(0.0, tableau.stability_size, 400))
    assert growth(-1.0001 * tableau.stability_size) > 1


def test_stability_optimized_methods_have_longer_stability_regions():
    assert sri.SOSRI.stability_size > 4.9 * sri.SRIW1.stability_size
    assert sra.SOSRA.stability_size > 2.6 * sra.SRA1.stability_size


def test_only_methods_with_two_drift_stages_at_the_end_of_the_step_estimate_stiffness():
    assert [x.name for x in (*SRIS, *SRAS) if x.estimates_stiffness] == ["SOSRI2", "SOSRA2"]


def test_a_user_may_give_coefficients():
    assert str(SRA(SRATableau(**HEUN))) == "Heun with noise"
    # Coefficients may be arrays, and zeros on and above the diagonal may be written out.
    table = {"a0": np.array([[0, 0], [3 / 4, 0]]), "b0": [[0.0, 0.0], [3 / 2, 0.0]], "alpha": np.array([1 / 3, 2 / 3])}
    written = SRATableau(**{**HEUN, **table})
    assert written.a0 == SRATableau(**HEUN).a0
    assert written.alpha == SRATableau(**HEUN).alpha
    fields = {x: getattr(sri.SRIW1, x) for x in SRITableau.__dataclass_fields__}
    assert SRITableau(**fields) == sri.SRIW1
    assert str(SRI(sri.SRIW1)) == "SRIW1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a0": [[], [0.5]]}, "row 1 of `a` must sum to the node c"),
        ({"a0": [[0.1], [3 / 4]]}, "`a0` must be strictly lower triangular: row 0 has 0 entries"),
        ({"a0": [[], [3 / 4], []]}, "`a0` must have 2 rows, one per stage"),
        ({"b0": [[]]}, "`b0` must have one entry per stage, 2, got 1"),
        ({"b0": [[], [1.0, 0.5, 0.0]]}, "at most one entry per diffusion, 2"),
        ({"b0": [[], [1.4]]}, r"alpha . B0 e must be 1, got 0.9333"),
        ({"c1": [1.0, 1.0]}, "the nodes `c1` must differ"),
        ({"beta1": [1.0]}, "`beta1` must have one entry per stage, 2, got 1"),
        ({"beta1": [1.1, 0.0]}, r"beta1 . 1 must be 1, got 1.1"),
        ({"beta2": [1.0, -1.0]}, r"beta2 . c1 must be -1, got 1"),
        ({"alpha": [1 / 2, 1 / 2]}, "the weights `alpha` do not have order 2"),
        ({"drift_order": 3}, "the weights `alpha` do not have order 3"),
        ({"drift_order": 1}, "strong order 1.5 needs order 2 without noise"),
    ],
)
def test_wrong_coefficients_for_additive_noise_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SRATableau(**{**HEUN, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a1": [[], [1 / 4], [1.0]]}, "`a1` must have 4 rows, one per stage, of at most 2 entries"),
        ({"b1": [[], [1 / 2], [-1.0], [-5.0, 3.0, 1 / 2, 1.0]]}, "`b1` must be strictly lower triangular: row 3"),
        ({"c1": [0.0, 1 / 4, 1.0]}, "`c1` must have one entry per stage, 4, got 3"),
        ({"c1": [0.0, 1 / 4, 1.0, 1 / 2]}, "row 3 of `a` must sum to the node"),
        ({"beta3": [2.0, -4 / 3, -2 / 3]}, "`beta3` must have one entry per stage, 4, got 3"),
        # The signs that go with the other signs of the stages, in SRIW2.
        ({"beta2": [1.0, -4 / 3, 1 / 3, 0.0]}, r"beta2 . B1 e must be 1, got -1"),
        ({"beta4": [-2.0, 5 / 3, -2 / 3, 0.9]}, r"beta4 . 1 must be 0, got -0.1"),
        ({"b0": [[], [1.5001]]}, r"alpha . B0 e must be 1, got 1.00006666667. Check the coefficients"),
    ],
)
def test_wrong_coefficients_for_diagonal_noise_are_refused(changes, message):
    fields = {x: getattr(sri.SRIW1, x) for x in SRITableau.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        SRITableau(**{**fields, **changes})
