"""Complete equations from the code of the known part."""

import numpy as np
import pytest
import sympy
import torch

from ude.discovery.symbols import complete_system
from ude.discovery.tracing import Traced, expressions_of
from ude.models import UDE, Expression, Parameter, Term

x, y = sympy.symbols("x y")


def model(known, unknown=None, **options):
    term = Expression([-0.5 * x * y, 0.25 * x], inputs=("x", "y"))
    return UDE(known, unknown if unknown is not None else term, states=("x", "y"), **options)


def stacked(t, y):
    return torch.stack([1.5 * y[..., 0] - t, torch.exp(-y[..., 1]) / 2], dim=-1)


def calling(t, y, p, u):
    a, b = y.unbind(-1)
    exchange = u(torch.stack([a / 2, b], dim=-1))
    return (p.k * a + exchange[..., 0], torch.tanh(b) ** 2 + exchange[..., 1] + p.light)


def rows(t, y, p):
    return torch.tensor([2.0, -3.0], dtype=torch.float64) * y + p.k[..., None] * y.square()


@pytest.mark.parametrize(
    ("known", "options"),
    [
        (stacked, {}),
        (calling, {"parameters": {"k": Parameter(0.7, positive=True)}, "inputs": ("light",)}),
        (rows, {"parameters": {"k": 0.7}}),
        (lambda t, y: (0 * y[..., 0], torch.zeros_like(y[..., 1])), {}),
        (lambda t, y: torch.cat([y[..., 1:], -y[..., :1]], -1), {}),
    ],
    ids=["stack", "calls and input", "whole rows", "nothing known", "slices"],
)
def test_the_equations_are_the_vector_field(known, options):
    field = model(known, **options)
    system = complete_system(field, "t")
    assert system is not None
    assert system.terms == ()
    names = sympy.symbols(["x", "y", "t", "light"])
    function = sympy.lambdify(names, list(system.rhs))
    point = torch.tensor([0.3, 1.7], dtype=torch.float64)
    signal = torch.tensor([0.9], dtype=torch.float64) if field.inputs else None
    expected = field(torch.tensor(0.4, dtype=torch.float64), point, signal).detach()
    np.testing.assert_allclose(np.array(function(0.3, 1.7, 0.4, 0.9), dtype=float), expected, rtol=1e-12)


def test_code_without_symbols_is_left_as_a_function():
    field = model(lambda t, y: torch.where(y > 0, y, 0 * y))
    system = complete_system(field, "day")
    assert system is not None
    assert system.texts(3)[0] == "x' = -0.5*x*y + known_x(day, x, y)"


def test_code_without_symbols_that_calls_the_term_itself_has_no_equations():
    term = Term(Expression([x], inputs=("x",)), inputs=("x",), outputs=("u",))
    field = model(lambda t, y, p, u: torch.where(y > 0, u(y[..., :1]), y), {"u": term})
    assert complete_system(field, "t") is None


def test_functions_that_have_no_symbolic_form_are_refused_by_name():
    with pytest.raises(TypeError, match="relu"):
        torch.relu(Traced(x))
    with pytest.raises(AttributeError):
        Traced(x).cumsum()


def test_every_operation_is_that_of_sympy():
    a, b = Traced(x), Traced([x, y])
    two = torch.tensor(2.0)
    pairs = [
        (1 + a, 1 + x),
        (1 - a, 1 - x),
        (2**a, 2**x),
        (1 / a, 1 / x),
        (two * a, 2.0 * x),
        (two - a, 2.0 - x),
        (a.exp(), sympy.exp(x)),
        (torch.sqrt(a), sympy.sqrt(x)),
        (torch.pow(a, 3), x**3),
        (abs(-1) * a, x),
    ]
    for traced, expected in pairs:
        assert expressions_of(traced) == [expected]
    assert expressions_of(b / b[..., [1, 0]]) == [x / y, y / x]
    assert expressions_of((b, 3)) == [x, y, 3]
