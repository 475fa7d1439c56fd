"""Values, names and symbols of a library describe the same functions."""

import numpy as np
import pysindy
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ude.discovery import Custom, Fourier, Polynomial, Rational, as_library

NAMES = ("x", "y", "z")
LIBRARIES = [
    Polynomial(degree=3),
    Polynomial(degree=3, include_bias=False),
    Polynomial(degree=3, interaction=False),
    Polynomial(degree=3, interaction_only=True),
    Polynomial(degree=0),
    Fourier(2),
    Fourier(2, sin=False),
    Rational(degree=2, constants=(0.5, 2.0), powers=(1, 2)),
    Custom((torch.exp, torch.tanh, lambda a, b: a / (1 + b)), ("exp({})", "tanh({})", "{}/(1 + {})")),
    Polynomial(degree=1) + Fourier(1).on(2) + Rational(degree=1).on(1, 0),
    Polynomial(degree=1) * Fourier(1).on(0),
    (Polynomial(degree=1) + Fourier(1)) * Rational(degree=0).on(1),
]


def points(rows=5, columns=3, seed=0):
    return torch.rand(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.1


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: type(library).__name__)
def test_symbols_evaluate_to_the_values(library):
    symbols = sympy.symbols(NAMES)
    x = points()
    expected = np.stack([sympy.lambdify(symbols, library.sympy(symbols))(*row) for row in x.tolist()])
    # A handful of rounding errors on numbers of order one.
    np.testing.assert_allclose(library(x).numpy(), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: type(library).__name__)
def test_names_are_distinct_and_as_many_as_the_values(library):
    names = library.names(NAMES)
    assert len(set(names)) == len(names) == library.size(3) == library(points()).shape[-1]


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: type(library).__name__)
def test_a_batch_of_any_shape_is_evaluated_row_by_row(library):
    x = points(24)
    assert torch.equal(library(x.reshape(2, 3, 4, 3)).reshape(24, -1), library(x))


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: type(library).__name__)
def test_values_are_differentiable(library):
    assert torch.autograd.gradcheck(library, points(2).requires_grad_())


def test_the_gradient_of_a_monomial_at_zero_is_finite():
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    Polynomial(degree=3)(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(2, dtype=torch.float64))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 4), st.integers(1, 4), st.booleans(), st.sampled_from([(True, False), (True, True), (False, False)])
)
def test_polynomials_are_pysindys_in_pysindys_order(n_inputs, degree, bias, interaction):
    theirs = pysindy.PolynomialLibrary(
        degree=degree, include_bias=bias, include_interaction=interaction[0], interaction_only=interaction[1]
    )
    x = points(4, n_inputs)
    expected = np.asarray(theirs.fit_transform(x.numpy()))
    ours = as_library(theirs)
    names = [f"x{i}" for i in range(n_inputs)]
    assert ours.names(names) == theirs.get_feature_names(names)
    # The same products in another order of multiplication.
    np.testing.assert_allclose(ours(x).numpy(), expected, rtol=1e-15 * 8)


@pytest.mark.parametrize(
    "theirs",
    [
        pysindy.FourierLibrary(n_frequencies=3),
        pysindy.PolynomialLibrary(degree=2) + pysindy.FourierLibrary(include_cos=False),
        pysindy.PolynomialLibrary(degree=2, include_bias=False) * pysindy.FourierLibrary(),
        pysindy.GeneralizedLibrary(
            [pysindy.PolynomialLibrary(), pysindy.FourierLibrary()], inputs_per_library=[[0, 1], [2]]
        ),
        pysindy.CustomLibrary([lambda x: np.exp(-x), lambda x, y: x * np.sin(y)]),
    ],
    ids=["Fourier", "sum", "product", "generalized", "custom"],
)
def test_libraries_of_pysindy_give_the_same_values(theirs):
    x = points()
    expected = np.asarray(theirs.fit(x.numpy()).transform(x.numpy()))
    ours = as_library(theirs)
    np.testing.assert_allclose(ours(x).numpy(), expected, rtol=1e-14)
    assert len(ours.names(NAMES)) == expected.shape[-1]


def test_a_wrapped_library_says_what_it_cannot_do():
    library = as_library(pysindy.CustomLibrary([lambda x: np.exp(-x)]))
    with pytest.raises(ValueError, match="no derivatives"):
        library(points().requires_grad_())
    with pytest.raises(ValueError, match="in symbols"):
        library.sympy(sympy.symbols(NAMES))


def test_arithmetic_on_symbols_needs_no_expression():
    symbols = sympy.symbols("x y")
    assert Custom((lambda x, y: x / (1 + y),)).sympy(symbols) == [symbols[0] / (1 + symbols[1])]
    with pytest.raises(ValueError, match="expressions="):
        Custom((lambda x: torch.sin(x) + 1,)).sympy(symbols)
    given_form = Custom((lambda x: torch.sin(x) + 1,), expressions=(lambda x: sympy.sin(x) + 1,))
    assert given_form.sympy(symbols[:1]) == [sympy.sin(symbols[0]) + 1]


def test_a_product_with_the_constant_is_not_written():
    assert (Polynomial(degree=1) * Polynomial(degree=0)).names(["x"]) == ["1", "x"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Polynomial(degree=-1), "degree"),
        (lambda: Polynomial(degree=0, include_bias=False), "degree"),
        (lambda: Polynomial(interaction=False, interaction_only=True), "interaction"),
        (lambda: Fourier(0), "n >= 1"),
        (lambda: Fourier(1, sin=False, cos=False), "sines or cosines"),
        (lambda: Rational(constants=()), "constants"),
        (lambda: Rational(constants=(-1.0,)), "positive"),
        (lambda: Custom(()), "at least one"),
        (lambda: Custom((torch.sin,), ("a", "b")), "one entry per function"),
        (lambda: Polynomial().on(), "distinct"),
        (lambda: Polynomial().on(0, 0), "distinct"),
        (lambda: Polynomial().on(3)(points()), "only 3"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_library_is_refused():
    with pytest.raises(TypeError, match="Polynomial"):
        as_library("poly")
    with pytest.raises(TypeError):
        Polynomial() + 1  # pyright: ignore[reportOperatorIssue]
