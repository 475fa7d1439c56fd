from __future__ import annotations

import copy

import numpy as np
import pytest
import sympy
import torch

from ude.models import MLP, UDE, Expression, parse_expression

x, y = sympy.symbols("x y")
FORMULAS = [
    1.3 * x - 0.9 * x * y,
    x**3 - 2 * x**2 + sympy.Rational(1, 3),
    x / (0.5 + x) - 1 / (1 + y**2) ** 2,
    sympy.exp(-x) * sympy.log(y) / sympy.sqrt(x),
    sympy.sin(2 * sympy.pi * x) + sympy.cos(y) ** 3 - sympy.tan(x / 3),
    sympy.tanh(x) * sympy.sinh(y) - sympy.cosh(x) + sympy.atan(y),
    sympy.Max(x, y, 1) + sympy.Min(x, 1.5) - sympy.Abs(x - y),
    x**y + 2.0**x + y**1.5 + x ** (-sympy.Rational(1, 2)),
    sympy.Float(2.5) + sympy.pi,
    sympy.Integer(3),
    -x,
    -x * y + x + y - 1,
    sympy.cot(x) * y,
    x**2 / (0.7**2.0 + x**2),
]


def points():
    return torch.rand(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5


@pytest.mark.parametrize("learnable", [True, False])
@pytest.mark.parametrize("formula", FORMULAS, ids=str)
def test_agrees_with_sympy_in_value_and_derivative(formula, learnable):
    values = points().requires_grad_()
    module = Expression(formula, ["x", "y"], learnable=learnable)
    result = module(values)
    columns = values.detach().numpy().T
    expected = np.broadcast_to(sympy.lambdify([x, y], formula)(*columns), 7)
    # The same formula in another order of operations: rounding only.
    np.testing.assert_allclose(result[:, 0].detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    scalar = [module.to_function()(row)[0] for row in values.tolist()]
    np.testing.assert_allclose(scalar, expected, rtol=1e-12, atol=1e-12)
    if result.requires_grad and formula.free_symbols:
        result.sum().backward()
        real = sympy.symbols("x y", real=True)  # sympy differentiates abs only on the real line
        formula = formula.xreplace(dict(zip((x, y), real, strict=True)))
        slopes = [np.broadcast_to(sympy.lambdify(real, formula.diff(v))(*columns), 7) for v in real]
        np.testing.assert_allclose(values.grad.numpy(), np.stack(slopes, -1), rtol=1e-11, atol=1e-11)


def test_derivatives_with_respect_to_the_coefficients_agree_with_sympy():
    module = Expression([1.3 * x - 0.9 * x * y, y / (0.4 + y)], ["x", "y"])
    values = points()
    module(values).sum().backward()
    structure = sum(module.structure)
    numbers = dict(zip(module.coefficient_symbols, module.coefficients.tolist(), strict=True))
    for symbol, ours in zip(module.coefficient_symbols, module.coefficients.grad.tolist(), strict=True):
        slope = sympy.lambdify([x, y], structure.diff(symbol).xreplace(numbers))
        assert ours == pytest.approx(np.sum(slope(*values.numpy().T)), rel=1e-12)


def test_floats_are_coefficients_and_integers_are_structure():
    module = Expression([2 * x - 0.5 * x**2 + 0.5 * y, 1.0 * y**2.0], ["x", "y"])
    assert sorted(module.coefficients.tolist()) == [-0.5, 0.5, 1.0]
    with torch.no_grad():
        module.coefficients[module.coefficients.tolist().index(-0.5)] = -0.25
    assert module.sympy[0] == -0.25 * x**2 + 2 * x + 0.5 * y
    assert str(module) == "-0.25*x**2 + 2*x + 0.5*y\n1*y**2"


def test_equal_numbers_are_coefficients_of_their_own():
    module = Expression([0.5 * x + 0.5 * y, 0.5 * x], ["x", "y"])
    assert module.coefficients.tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("batch", [(), (4,), (4, 3)])
def test_members_equal_single_expressions(batch):
    many = Expression([0.5 * x * y, 1.0 + x / (0.3 + y)], ["x", "y"]).replicate(3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        many.coefficients.add_(torch.rand(many.coefficients.shape, generator=generator))
    values = torch.rand(3, *batch, 2, dtype=torch.float64, generator=generator)
    alone = torch.stack([many.member(k)(values[k]) for k in range(3)])
    torch.testing.assert_close(many(values), alone, rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="member"):
        _ = many.sympy


@pytest.mark.parametrize("learnable", [True, False])
def test_compiles_without_a_break(learnable):
    torch._dynamo.reset()
    module = Expression([f for f in FORMULAS if f.has(x)], ["x", "y"], learnable=learnable)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(points()), module(points()), rtol=1e-12, atol=1e-12)


def test_takes_the_place_of_a_network_in_a_model():
    model = UDE(lambda t, s: 0 * s, MLP(2, 2), states=("x", "y"))
    model.scale_terms(torch.zeros(7), points(), torch.ones(2))
    formula = Expression([-0.9 * x * y, 0.8 * x * y], ["x", "y"])
    exact = model.replace("U", formula)
    product = points().prod(-1, keepdim=True)
    torch.testing.assert_close(exact(0.0, points()), torch.cat([-0.9 * product, 0.8 * product], -1))
    many = exact.replicate(4)
    assert many(0.0, points().expand(4, 7, 2)).shape == (4, 7, 2)
    assert {p.shape[0] for p in many.parameters()} == {4}


def test_can_be_copied_saved_and_restored():
    module = Expression(0.5 * x + 0.25 * y, ["x", "y"])
    other = copy.deepcopy(module)
    with torch.no_grad():
        module.coefficients.mul_(3.0)
    assert other.sympy[0] == 0.5 * x + 0.25 * y
    other.load_state_dict(module.state_dict())
    assert other.sympy == module.sympy
    again = Expression(parse_expression(module.texts()[0], ["x", "y"]), ["x", "y"])
    assert again.sympy == module.sympy


@pytest.mark.parametrize("wrong", [sympy.Symbol("z") * x, sympy.Function("f")(x), sympy.gamma(x)])
def test_what_cannot_be_evaluated_is_refused(wrong):
    with pytest.raises(ValueError, match=r"'z'|'f'|'gamma'"):
        Expression(wrong, ["x", "y"])
