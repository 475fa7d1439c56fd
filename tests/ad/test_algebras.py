"""Algebras: exact slot counts, structure constants, and jets against nested differentiation in float64."""

import math
from fractions import Fraction
from itertools import combinations_with_replacement

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import jacfwd, jvp

from ude import ad
from ude.ad.algebra.polynomial import closure, derivative, from_multi_indices


def laplacian_power(dimension, power):
    """|xi|^(2 power) by multi-index."""
    terms = {}
    for chosen in combinations_with_replacement(range(dimension), power):
        index = tuple(2 * chosen.count(i) for i in range(dimension))
        terms[index] = math.factorial(power) // math.prod(math.factorial(chosen.count(i)) for i in range(dimension))
    return terms


def mixed_third(dimension):
    """sum_ij d_i^2 d_j, i = j among them."""
    terms = {}
    for i in range(dimension):
        for j in range(dimension):
            index = tuple(2 * (k == i) + (k == j) for k in range(dimension))
            terms[index] = terms.get(index, 0) + 1
    return terms


KURAMOTO_SIVASHINSKY = [{(1, 0): 1, (0, 2): 1, (0, 4): 1}, {(0, 1): 1}]
# u_ty + u_xxxy + 3 u_y u_xx + 3 u_x u_xy - u_xx + 2 u_yy in (t, x, y)
KDV = [{(1, 0, 1): 1}, {(0, 3, 1): 1}, {(0, 1, 1): 1}, {(0, 1, 0): 1}, {(0, 0, 1): 1}, {(0, 2, 0): 1}, {(0, 0, 2): 1}]
KDV_MERGED = [
    {(1, 0, 1): 1, (0, 3, 1): 1, (0, 2, 0): -1, (0, 0, 2): 2},
    {(0, 1, 1): 1},
    {(0, 1, 0): 1},
    {(0, 0, 1): 1},
    {(0, 2, 0): 1},
]


@pytest.mark.parametrize(
    ("operators", "dim"),
    [
        ([laplacian_power(7, 1)], 9),
        ([laplacian_power(2, 2)], 9),
        ([laplacian_power(3, 2)], 14),
        ([laplacian_power(5, 2)], 27),
        ([laplacian_power(10, 2)], 77),
        ([laplacian_power(2, 3)], 16),
        ([laplacian_power(3, 3)], 30),
        ([mixed_third(5)], 12),
        (KURAMOTO_SIVASHINSKY, 5),
        (KDV, 11),
        (KDV_MERGED, 8),
    ],
    ids=["laplacian7", "bi2", "bi3", "bi5", "bi10", "tri2", "tri3", "mixed5", "ks", "kdv", "kdv-merged"],
)
def test_an_operator_needs_the_number_of_slots_that_its_derivatives_span(operators, dim):
    algebra = ad.Symbol(*operators)
    assert algebra.dim == dim == sum(algebra.slots_per_degree) == len(algebra.labels)


def test_the_slots_of_a_homogeneous_symbol_are_symmetric_in_the_degree():
    assert ad.Symbol(laplacian_power(5, 2)).slots_per_degree == (1, 5, 15, 5, 1)


def test_ranks_are_exact_where_a_floating_tolerance_would_merge_polynomials():
    tiny = 2.0**-60
    together = ad.Symbol({(2, 0): 1, (0, 2): 1}, {(2, 0): 1, (0, 2): 1 + Fraction(1, 2**60)})
    assert together.dim == 5  # 1, d0, d1 and two operators of order two
    assert ad.Symbol({(2, 0): 1, (0, 2): tiny}).dim == 4
    assert ad.Symbol({(2, 0): Fraction(1, 3), (0, 2): Fraction(1, 3)}, {(2, 0): 1, (0, 2): 1}).dim == 4


def test_coordinates_refuse_an_operator_that_the_slots_do_not_carry():
    algebra = ad.Symbol({(2, 0): 1, (0, 2): 1})
    assert algebra.coordinates({(2, 0): 3, (0, 2): 3, (0, 0): 2}) == (2, ((3, 3),))
    with pytest.raises(ValueError, match="Give this operator to `Symbol`"):
        algebra.coordinates({(2, 0): 1})


@pytest.mark.parametrize("bad", [{}, {(0, 0): 1.0}], ids=["empty", "no-derivative"])
def test_a_symbol_needs_a_derivative(bad):
    with pytest.raises(ValueError, match="Expected"):
        ad.Symbol(bad)


def test_a_symbol_refuses_indices_that_are_not_counts_of_one_length():
    with pytest.raises(ValueError, match="integers >= 0"):
        ad.Symbol({(-1, 0): 1.0})
    with pytest.raises(ValueError, match="one length"):
        ad.Symbol({(1, 0): 1.0, (2,): 1.0})


@pytest.mark.parametrize("order", [0, -1, 1.5, True])
def test_an_order_is_an_integer_of_at_least_one(order):
    with pytest.raises(ValueError, match="order of at least 1"):
        ad.Univariate(order)


def test_algebras_are_values():
    assert ad.Univariate(3) == ad.Univariate(3) != ad.Univariate(4)
    assert ad.Directions(3, 2) == ad.Directions(3, 2, [1, 1, 1]) != ad.Directions(3, 2, [1, 1, 2])
    assert ad.Symbol({(2,): 1}) == ad.Symbol({(2,): 1.0}) != ad.Symbol({(2,): 2})
    assert hash(ad.Symbol({(2,): 1})) == hash(ad.Symbol({(2,): 1.0}))
    assert ad.Univariate(1) != ad.Directions(1, 1)


def random_polynomials():
    index = st.tuples(*[st.integers(0, 2)] * 3)
    return st.dictionaries(index, st.fractions(-3, 3, max_denominator=4), min_size=1, max_size=4)


@given(random_polynomials())
@settings(max_examples=60, deadline=None)
def test_the_span_is_closed_under_derivatives_and_contains_its_generator(terms):
    p = from_multi_indices(terms)
    span = closure([p])
    assert span.contains(p)
    for row in span.rows.values():
        for i in range(3):
            assert span.contains(derivative(row, i))


@given(random_polynomials())
@settings(max_examples=40, deadline=None)
def test_the_structure_constants_are_associative_and_commutative(terms):
    if not any(any(index) and c for index, c in terms.items()):
        return
    algebra = ad.Symbol(terms)
    table = {}
    for out, a, b, scale in algebra.structure:
        table.setdefault((a, b), {})[out] = scale
    for (a, b), row in table.items():
        assert table[b, a] == row
    slots = range(1, algebra.dim)

    def times(x, b):
        result = {}
        for a, scale in x.items():
            for out, factor in table.get((a, b), {}).items():
                result[out] = result.get(out, 0) + scale * factor
        return {out: value for out, value in result.items() if value}

    for a in slots:
        for b in slots:
            for c in slots:
                assert times(times({a: Fraction(1)}, b), c) == times(times({c: Fraction(1)}, b), a)


# Jets against nested differentiation


def field(x):
    """A scalar function of two variables that uses many rules."""
    a, b = x[..., 0], x[..., 1]
    return torch.tanh(a * b) + torch.exp(-a * a) / (1.5 + torch.sin(b)) + torch.sqrt(2.0 + a + b * b)


def partial(index, x):
    """The partial derivative of `field` by nested forward mode."""
    f = field
    for variable, count in enumerate(index):
        direction = torch.eye(2, dtype=x.dtype)[variable]
        for _ in range(count):
            f = (lambda g, v: lambda y: jvp(g, (y,), (v,))[1])(f, direction)
    return f(x)


OPERATORS = {
    "first": [{(1, 0): 2, (0, 1): -1}],
    "mixed": [{(2, 0): 1, (1, 1): 3, (0, 2): -2, (1, 0): 1}],
    "third": [{(2, 1): 1, (0, 3): -1, (0, 1): 0.5}],
    "biharmonic": [laplacian_power(2, 2)],
    "Kuramoto-Sivashinsky": KURAMOTO_SIVASHINSKY,
    "fifth": [{(3, 2): 1, (0, 2): 1}, {(1, 1): 1}],
    "sixth": [laplacian_power(2, 3)],
}


@pytest.mark.parametrize("name", OPERATORS)
def test_every_slot_holds_its_derivative(name):
    x = torch.tensor([0.3, -0.7], dtype=torch.float64)
    result = ad.linear_operator(field, x, OPERATORS[name])
    for operator, value in zip(OPERATORS[name], result.operator, strict=True):
        exact = sum(c * partial(index, x) for index, c in operator.items())
        torch.testing.assert_close(value, exact, rtol=1e-11, atol=1e-11)  # rounding of a few hundred operations


@pytest.mark.parametrize("order", [1, 2, 3, 6])
def test_univariate_jets_are_the_derivatives_along_a_curve(order):
    torch.manual_seed(0)
    series = 0.5 * torch.randn(order + 1, 2, dtype=torch.float64)
    coefficients = ad.jet(field, series)

    def along(t):
        return field(sum(c * t**k for k, c in enumerate(series)))

    g, one = along, torch.tensor(1.0, dtype=torch.float64)
    for k, coefficient in enumerate(coefficients):
        exact = g(0 * one) / math.factorial(k)
        torch.testing.assert_close(coefficient, exact, rtol=1e-11, atol=1e-11)
        g = (lambda h: lambda t: jvp(h, (t,), (one,))[1])(g)


@pytest.mark.parametrize("collapsed", [True, False])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_directions_give_directional_derivatives_and_their_weighted_sum(order, collapsed):
    torch.manual_seed(1)
    x = torch.tensor([0.3, -0.7], dtype=torch.float64)
    directions, weights = torch.randn(3, 2, dtype=torch.float64), [2.0, -1.0, 0.5]
    jet = field(ad.Jet(ad.Directions(3, order, weights, collapsed=collapsed), x, directions if order > 1 else None))
    if order == 1:
        seeds = (torch.tensor(weights, dtype=x.dtype) @ directions).unsqueeze(0) if collapsed else directions
        jet = field(ad.Jet(ad.Directions(3, 1, weights, collapsed=collapsed), x, seeds))
    exact = torch.stack([torch.stack(ad.jet(field, torch.stack([x, v] + [0 * v] * (order - 1)))) for v in directions])
    slots = jet.dense()
    torch.testing.assert_close(slots[: 3 * (order - 1)], exact[:, 1:order].T.flatten(), rtol=1e-12, atol=1e-12)
    top = torch.tensor(weights, dtype=x.dtype) @ exact[:, order] if collapsed else exact[:, order]
    torch.testing.assert_close(slots[3 * (order - 1) :].squeeze(0), top, rtol=1e-12, atol=1e-12)


def test_a_product_carries_time_derivatives_of_an_operator():
    # d^k/dt^k of the Laplacian of f at x(t), x(t) = x + t v: nested forward mode of the operator itself.
    x, v = torch.tensor([0.3, -0.7], dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64)
    space, time = ad.Symbol({(2, 0): 1, (0, 2): 1}), ad.Univariate(2)
    algebra = ad.Product(space, time)
    assert algebra.dim == 12
    seeds = torch.zeros(algebra.dim - 1, 2, dtype=torch.float64)
    seeds[algebra.number(1, 0) - 1, 0] = seeds[algebra.number(2, 0) - 1, 1] = 1.0
    seeds[algebra.number(0, 1) - 1] = v
    jet = field(ad.Jet(algebra, x, seeds))

    def operator(t):
        return jacfwd(jacfwd(field))(x + t * v).trace()

    g, one = operator, torch.tensor(1.0, dtype=torch.float64)
    for k in range(3):
        exact = g(0 * one) / math.factorial(k)
        torch.testing.assert_close(jet.slot(algebra.number(3, k)), exact, rtol=1e-11, atol=1e-11)
        g = (lambda h: lambda t: jvp(h, (t,), (one,))[1])(g)


def test_jets_of_different_algebras_do_not_mix():
    x = torch.ones(2)
    with pytest.raises(ValueError, match="jets of one algebra"):
        ad.Jet(ad.Univariate(1), x, x[None]) + ad.Jet(ad.Univariate(2), x, x[None])


def test_series_of_pytrees_keep_their_structure():
    series = [{"a": torch.tensor(1.0), "b": torch.tensor([2.0])}, {"a": torch.tensor(0.5), "b": torch.tensor([1.0])}]
    value, slope = ad.jet(lambda tree: {"product": tree["a"] * tree["b"], "constant": torch.ones(2)}, series)
    assert slope["product"].tolist() == [2.0]
    assert value["constant"].tolist() == [1.0, 1.0]
    assert slope["constant"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ([torch.ones(2)], "at least 1 coefficient"),
        ([torch.ones(2), torch.ones(3)], "shape and format of the value"),
        ([torch.ones(2), torch.ones(2, dtype=torch.float64)], "shape and format of the value"),
        ([torch.ones(2), [torch.ones(2)]], "one structure"),
    ],
    ids=["too-few", "shape", "dtype", "structure"],
)
def test_series_that_do_not_fit_are_refused(series, message):
    with pytest.raises(ValueError, match=message):
        ad.jet(torch.sin, series)


def test_integers_have_no_jets():
    with pytest.raises(TypeError, match="real or complex floats"):
        ad.jet(torch.sin, [torch.ones(2, dtype=torch.int64)] * 2)


@pytest.mark.parametrize("function", [torch.tanh, torch.sigmoid], ids=["tanh", "sigmoid"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=["f32", "f64"])
def test_jets_keep_their_digits_up_to_order_ten(function, dtype, bound):
    points, order = torch.linspace(-4.0, 4.0, 33, dtype=dtype), 10
    series = [points, torch.ones_like(points)] + [torch.zeros_like(points)] * (order - 1)
    found = torch.stack(ad.jet(function, series)).double()
    exact_function = mpmath.tanh if function is torch.tanh else (lambda x: 1 / (1 + mpmath.exp(-x)))
    with mpmath.workdps(40):
        exact = torch.tensor(
            [[float(c) for c in mpmath.taylor(exact_function, mpmath.mpf(float(p)), order)] for p in points],
            dtype=torch.float64,
        ).T
    error = (found - exact).abs().amax(1) / exact.abs().amax(1)
    assert error.max() <= bound
