"""A tableau given by the user is checked when it is made."""

import re

import pytest
import torch

from ude.methods import ExplicitRungeKutta, Tableau

RK38 = {
    "name": "RK38",
    "a": [[], [1 / 3], [-1 / 3, 1.0], [1.0, -1.0, 1.0]],
    "b": [1 / 8, 3 / 8, 3 / 8, 1 / 8],
    "c": [0.0, 1 / 3, 2 / 3, 1.0],
    "order": 4,
}


def test_a_user_may_give_the_three_eighths_rule():
    method = ExplicitRungeKutta(Tableau(**RK38))
    assert str(method) == "RK38"
    assert (method.order, method.evaluations, method.error_order, method.dense_order) == (4, 4, None, 3)
    # One step of y' = t^3 is exact: the quadrature behind the method integrates cubics.
    t, dt, y = (torch.tensor([x], dtype=torch.float64) for x in (0.0, 2.0, 0.0))
    y1 = method.step(lambda t, y: t[:, None] ** 3, t, dt, y[:, None], ()).y1
    assert y1.item() == pytest.approx(4.0, abs=1e-14)


def test_a_square_matrix_means_the_same_as_its_lower_rows():
    square = [[*row, *[0.0] * (4 - len(row))] for row in RK38["a"]]
    assert Tableau(**{**RK38, "a": square}) == Tableau(**RK38)


def test_a_tensor_or_an_array_of_coefficients_is_taken():
    square = torch.tensor([[*row, *[0.0] * (4 - len(row))] for row in RK38["a"]], dtype=torch.float64)
    given = {"a": square, "b": torch.tensor(RK38["b"], dtype=torch.float64)}
    assert Tableau(**{**RK38, **given}) == Tableau(**RK38)


def test_equal_tableaus_are_equal_and_hashable():
    assert hash(Tableau(**RK38)) == hash(Tableau(**RK38))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b": [1 / 8, 3 / 8, 3 / 8]}, "one entry per stage, got 4 rows in `a`, 3 weights in `b` and 4 nodes"),
        ({"c": [0.0, 1 / 3, 2 / 3]}, "one entry per stage"),
        ({"a": [], "b": [], "c": []}, "one entry per stage"),
        ({"a": [[], [1 / 3], [-1 / 3, 1.0, 0.5], [1.0, -1.0, 1.0]]}, "strictly lower triangular: row 2 has 2 entries"),
        ({"a": [[0.5, 0, 0, 0], [1 / 3], [-1 / 3, 1], [1, -1, 1]]}, "Only explicit methods"),
        ({"c": [0.0, 1 / 3, 0.6, 1.0]}, "row 2 of `a` must sum to the node c[2] = 0.6"),
        ({"b": [1 / 8, 3 / 8, 3 / 8, 1 / 4]}, "weights `b` do not have order 4: the condition of order 1"),
        ({"order": 5}, "state order 4"),
        ({"order": 0}, "`order` must be at least 1"),
        ({"b_err": [0.0, 0.0, 0.0, 0.0]}, "both `b_err` and `embedded_order`"),
        ({"b_err": [0.1, 0.0], "embedded_order": 1}, "`b_err` must have one weight per stage, 4, got 2"),
        ({"b_err": [0.1, 0.0, 0.0, 0.0], "embedded_order": 1}, "weights `b - b_err` do not have order 1"),
        ({"dense_order": 3}, "describe `dense`; give it as well"),
        ({"dense": [[1.0]], "dense_order": 1}, "one polynomial per stage, 4"),
        ({"dense": [[1 / 8], [3 / 8], [3 / 8], [1 / 4]], "dense_order": 1}, "must end at the solution"),
        (
            {"dense": [[1 / 8], [3 / 8], [3 / 8], [1 / 8]], "dense_order": 2},
            "`dense at theta = 0.25` do not have order 2",
        ),
        ({"dense": [[1.0]] * 5, "dense_order": 1, "extra_a": [[1.0]], "extra_c": [1.0]}, "over all stages before it"),
    ],
)
def test_a_mistake_is_named(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Tableau(**{**RK38, **changes})


def test_a_misspelt_option_is_a_type_error():
    with pytest.raises(TypeError):
        Tableau(**RK38, weights=[1.0])
