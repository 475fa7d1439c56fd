from __future__ import annotations

import json
import math
import string

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ude._checks import InputError
from ude.models import (
    MLP,
    EquationSystem,
    Expression,
    Parameter,
    Signal,
    parse_equations,
    parse_expression,
    parse_parameter,
)
from ude.models.equations import to_text
from ude.models.program import compile_program

HUDSON = ["hare' = a*hare + ?(hare, lynx)", "lynx' = -d*lynx + ?(hare, lynx)"]


def symbols(names):
    return sympy.symbols(names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", "2"),
        ("-x^2", "-x**2"),
        ("2^-x^2", "2**(-x**2)"),
        ("2^3^2", "512"),
        ("x-y-z", "x - y - z"),
        ("x/y/z", "x/(y*z)"),
        ("x/y*z", "x*z/y"),
        ("-x*-y", "x*y"),
        ("+x", "x"),
        ("1.5e-3*x", "0.0015*x"),
        (".5*x", "0.5*x"),
        ("x**2.0", "x**2"),
        ("3 / 4", "3/4"),
        ("sqrt(x)", "sqrt(x)"),
        ("ln(x) + log(y)", "log(x) + log(y)"),
        ("min(x, 2, y)", "min(2, x, y)"),
        ("abs(x) + Abs(y)", "abs(x) + abs(y)"),
        ("hill(x, K, 2)", "x**2/(K**2 + x**2)"),
        ("mm(x, K)", "x/(K + x)"),
        ("sin(2*pi*x)", "sin(2*pi*x)"),
        ("1/(1 + x)", "1/(x + 1)"),
        ("x·y − 2×z", "x*y - 2*z"),
        ("exp(1)", repr(math.e)),
        ("β*x", "x*β"),
    ],
)
def test_reads_formulas(text, expected):
    assert to_text(parse_expression(text, ["x", "y", "z", "K", "β"])) == expected


@pytest.mark.parametrize(
    "left", ["hare'", "hare ' ", "d(hare)/dt", "dhare/dt", "d( hare )/dyear", "dhare / dyear", "hare’"]
)
def test_left_sides(left):
    system = parse_equations([f"{left} = a*hare*t + year"], time="year")
    assert system.states == ("hare",)
    assert system.texts() == ["hare' = a*hare*year + year"]
    assert tuple(system.parameters) == ("a",)


def test_names_are_sorted_into_states_inputs_time_and_parameters():
    system = parse_equations(
        ["S' = -b*S*I*temperature", "I' = b*S*I*temperature - g*I + sin(t)"],
        inputs=("temperature", "rain"),
        parameters={"g": Parameter(0.2, positive=True), "b": 3},
    )
    assert system.inputs == ("temperature",)
    assert system.parameters == {"b": Parameter(3.0), "g": Parameter(0.2, positive=True)}
    assert system.terms == ()


def test_anonymous_unknowns_of_the_same_inputs_share_a_network():
    system = parse_equations(["x' = ?(x, y) + k*?(x*y)", "y' = -?(x, y) * ?(x, y)"])
    assert [(t.name, t.inputs, t.outputs) for t in system.terms] == [
        ("U", ("x", "y"), ("U_x", "U_y", "U_y_2")),
        ("U2", ("x*y",), ("U2_x",)),
    ]
    assert system.texts() == ["x' = k*U2_x(x*y) + U_x(x, y)", "y' = -U_y(x, y)*U_y_2(x, y)"]


def test_a_named_unknown_is_one_function():
    system = parse_equations(["x' = ?f(x) - ?f(y)", "y' = ?f(y) + ?g(x)"])
    assert [(t.name, t.inputs, t.outputs) for t in system.terms] == [("f", ("x1",), ("f",)), ("g", ("x",), ("g",))]
    model = system.to_ude()
    y = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    f, g = model.terms["f"], model.terms["g"]
    expected = torch.cat([f(y[:, :1]) - f(y[:, 1:]), f(y[:, 1:]) + g(y[:, :1])], dim=1)
    torch.testing.assert_close(model(0.0, y), expected, rtol=1e-13, atol=1e-13)


def test_the_model_is_the_equations():
    system = parse_equations(
        ["x' = a*x*cos(t) + ?(x, heat*y)/(1 + y^2)", "y' = min(y, 1) - heat"], inputs=("heat",), parameters={"a": 2.0}
    )
    model = system.to_ude(network=lambda i, o: MLP(i, o, width=5))
    generator = torch.Generator().manual_seed(0)
    t = torch.rand(6, 1, dtype=torch.float64, generator=generator)
    y, heat = (
        torch.randn(6, 2, dtype=torch.float64, generator=generator),
        torch.rand(6, 1, generator=generator).double(),
    )
    u = model.terms["U"](torch.stack([y[:, 0], heat[:, 0] * y[:, 1]], -1))[:, 0]
    dx = 2 * y[:, 0] * t[:, 0].cos() + u / (1 + y[:, 1] ** 2)
    expected = torch.stack([dx, y[:, 1].clamp(max=1) - heat[:, 0]], -1)
    torch.testing.assert_close(model(t, y, heat), expected, rtol=1e-13, atol=1e-13)
    many = model.replicate(2, generator)
    alone = torch.cat([many.member(k)(t, y, heat) for k in range(2)])
    together = many(t.repeat(2, 1), y.repeat(2, 1), heat.repeat(2, 1))
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("replicates", [None, 2])
def test_the_model_of_equations_compiles_without_a_break(replicates):
    torch._dynamo.reset()
    model = parse_equations(["x' = a*x*cos(t) + ?(x, heat)"], inputs=("heat",)).to_ude(positive=("x",))
    rows = 3
    if replicates:
        model, rows = model.replicate(replicates), 3 * replicates
    field, y = model.latent_field(), torch.ones(rows, 1).double()
    ts = torch.arange(4.0).double().expand(3, 4)
    signal = Signal.linear(ts, ts.sin().unsqueeze(-1))
    t = torch.linspace(0.2, 2.9, rows).double()[:, None]
    compiled = torch.compile(field, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(t, y, signal), field(t, y, signal), rtol=1e-13, atol=1e-13)


def test_survives_json():
    system = parse_equations(
        ["x' = a*x + ?(x, y)*hill(x, K, n)", "y' = -1.1*y*heat + ?(x, y) + ?g(x) + ?g(y) + max(0, y)"],
        inputs=("heat",),
        time="year",
        parameters={"K": Parameter(0.5, bounds=(0.0, 1.0)), "a": 1 / 3},
    )
    again = EquationSystem.from_dict(json.loads(json.dumps(system.to_dict())))
    assert again == system


@pytest.mark.parametrize(
    "change",
    [
        {"equations": ["__import__('os')"]},
        {"equations": ["q"]},
        {"equations": []},
        {"states": None},
        {"parameters": {"a": {"initial": "x"}}},
        {"terms": [{"name": "U"}]},
    ],
)
def test_a_damaged_description_is_refused(change):
    values = parse_equations(["x' = a*x"]).to_dict() | change
    with pytest.raises(InputError):
        EquationSystem.from_dict(values)


def test_substitution_gives_the_recovered_system():
    x, y = symbols("hare lynx")
    system = parse_equations(HUDSON, parameters={"a": 0.55, "d": 0.8}).substitute("U", [-1.7 * x * y, 2.0 * x * y])
    assert system.terms == ()
    assert system.with_values({"a": 0.55, "d": 0.8}).texts(2) == [
        "hare' = -1.7*hare*lynx + 0.55*hare",
        "lynx' = 2*hare*lynx - 0.8*lynx",
    ]
    f = system.to_function()
    assert f(0.0, [1.0, 2.0]) == pytest.approx([0.55 - 3.4, 4.0 - 1.6])
    rate = system.to_ude()(0.0, torch.tensor([1.0, 2.0]).double())
    assert rate.tolist() == pytest.approx(f(0.0, [1.0, 2.0]))
    two = parse_equations(["p' = ?f(p) - ?f(q)", "q' = 0"]).substitute("f", [sympy.Symbol("x1") ** 2])
    assert two.texts() == ["p' = p**2 - q**2", "q' = 0"]


def test_latex_names_are_upright_and_greek():
    text = parse_equations(["hare' = alpha*hare - k_1"]).latex()
    assert r"\frac{d\mathrm{hare}}{dt} &= \alpha \mathrm{hare} - k_{1}" in text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "between 1 and 100 equations"),
        (["a*x"], "not an equation"),
        (["x' = a = b"], "one equals sign"),
        (["x'' = a"], "first derivatives"),
        (["x = a"], "expected the derivative"),
        (["dx/dz = a"], "by the time"),
        (["x' = a", "x' = b"], "two equations"),
        (["exp' = a"], "another meaning"),
        (["t' = a"], "another meaning"),
        (["heat' = a"], "named as an input"),
        (["x' = "], "ends too early"),
        (["x' = a*"], "ends too early"),
        (["x' = (a"], "never closed"),
        (["x' = a)"], "never opened"),
        (["x' = 2 x"], "Write products"),
        (["x' = 2x"], "Write products"),
        (["x' = 1,5*x"], "decimals with a point"),
        (["x' = x(1 - x)"], "not a function"),
        (["x' = sine(x)"], "did you mean 'sin'"),
        (["x' = exp"], r"Call it as `exp\(x\)`"),
        (["x' = hill(x, 2)"], r"hill\(x, K, n\)"),
        (["x' = exp()"], "0 argument"),
        (["hare' = a*hrae"], "did you mean 'hare'"),
        (["hare' = a*Hare"], "did you mean 'hare'"),
        (["x' = ?"], "depends on"),
        (["x' = ?()"], "must contain"),
        (["x' = ?(2)"], "must contain"),
        (["x' = ?(?(x))"], "argument of another"),
        (["x' = ?f(x) + ?f(x, t)"], "the same number"),
        (["x' = ?x(x)"], "this name is taken"),
        (["x' = ?forward(x)"], "this name is taken"),
        (["x' = ?f(x) + f"], "unknown term and of something else"),
        (["x' = 1/0"], "divides by zero"),
        (["x' = 1/(x - x)"], "divides by zero"),
        (["x' = log(0)"], "no finite value"),
        (["x' = sqrt(-1)*x"], "not a real number"),
        (["x' = 9^9^9"], "at most 100"),
        (["x' = 10^100^2"], "at most 100"),
        (["x' = ((x^99)^99)^99"], "degree 1000"),
        (["x' = 1e999"], "too large"),
        (["x' = " + "9" * 400], "too large"),
        (["x' = 1e300*x*1e300"], "too large"),
        (["x' = exp(exp(exp(99)))"], "no finite value"),
        (["x' = " + "(" * 200 + "x" + ")" * 200], "levels deep"),
        (["x' = " + "-" * 200 + "x"], "levels deep"),
        (["x' = " + "x^" * 200 + "x"], "levels deep"),
        (["x' = " + "x+" * 10**6], "at most 2000 characters"),
        (["x' = __import__('os').system('x')"], "two underscores"),
        (["x' = ().__class__"], "no meaning"),
        (["x' = ()"], "expected a number"),
        (["x' = x.__class__"], "no meaning"),
        (["x' = [x for x in y]"], "no meaning"),
        (["x' = 'a'"], "no meaning"),
        (["x' = lambda: 0"], "no meaning"),
        (["x' = eval(x)"], "not a function"),
        (["x' = x; y"], "no meaning"),
        (["x' = x\x00"], r"U\+0000"),
        (["x' = x²"], "no meaning"),
        (["x' = ∂x"], "no meaning"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_to_do(lines, message):
    with pytest.raises(InputError, match=message):
        parse_equations(lines, inputs=("heat",))


def test_messages_point_at_the_place():
    with pytest.raises(InputError) as caught:
        parse_equations(["x' = a*x + exq(x)"])
    first, shown, caret = str(caught.value).split("\n")
    assert "'exq' is not a function" in first
    assert shown[caret.index("^")] == "e"
    assert shown.strip() == "x' = a*x + exq(x)"


@pytest.mark.parametrize("values", [{"b": 1.0}, {"x": 1.0}])
def test_values_for_what_is_no_parameter_are_refused(values):
    with pytest.raises(InputError, match="The parameters are"):
        parse_equations(["x' = a*x"], parameters=values)


def test_a_parameter_that_resembles_a_state_can_be_declared():
    assert tuple(parse_equations(["hare' = hrae*hare"], parameters={"hrae": 1}).parameters) == ("hrae",)
    assert tuple(parse_equations(["hare' = hare_0*K_hare - k2*hare"]).parameters) == ("hare_0", "K_hare", "k2")


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=b", "1a=2", "a=1=2", "a=1/0", "a b=1"])
def test_a_parameter_value_must_be_a_number(text):
    with pytest.raises(InputError):
        parse_parameter(text)


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=60)
    | st.text(alphabet=string.printable, max_size=60)
    | st.text("xyt0159.e+-*/^(),?' =", max_size=60)
)
def test_any_text_is_read_or_refused(text):
    for line in (text, f"x' = {text}"):
        try:
            system = parse_equations([line], inputs=("z",))
            assert EquationSystem.from_dict(json.loads(json.dumps(system.to_dict()))) == system
        except InputError:
            pass


def trees():
    """Random formulas as text, finite for arguments between 0.5 and 2."""
    leaves = st.sampled_from(["x", "y", "2", "0.3", "1e-1", "pi", "7", "1.25"])

    def grown(inner):
        binary = st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda p: f"({p[0]}) {p[1]} ({p[2]})")
        safe = st.tuples(inner, inner).map(lambda p: f"({p[0]})/(1 + ({p[1]})^2)")
        calls = st.tuples(st.sampled_from(["sin", "cos", "tanh", "abs", "atan", "sigmoid"]), inner).map(
            lambda p: f"{p[0]}({p[1]})"
        )
        pairs = st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda p: f"{p[0]}({p[1]}, {p[2]})")
        roots = inner.map(lambda p: f"sqrt(1 + ({p})**2)")
        powers = st.tuples(inner, st.integers(2, 3)).map(lambda p: f"(sin({p[0]}))^{p[1]}")
        minus = inner.map(lambda p: f"-{p}")
        return binary | safe | calls | pairs | roots | powers | minus

    return st.recursive(leaves, grown, max_leaves=8)


def reference(text, x, y):
    """The same formula by NumPy; `text` is one of ours, not a user's."""
    names = {name: getattr(np, name) for name in ("sin", "cos", "tanh", "abs", "sqrt", "pi")}
    names |= {"atan": np.arctan, "sigmoid": lambda z: 1 / (1 + np.exp(-z)), "min": np.minimum, "max": np.maximum}
    return eval(text.replace("^", "**"), {"__builtins__": {}}, names | {"x": x, "y": y})


@settings(max_examples=150, deadline=None)
@given(trees())
def test_printing_and_parsing_again_gives_the_same_function(text):
    x, y = np.random.default_rng(0).uniform(0.5, 2.0, (2, 5))
    expression = parse_expression(text, ["x", "y"])
    again = parse_expression(to_text(expression), ["x", "y"])
    expected = np.broadcast_to(reference(text, x, y), x.shape)
    for version in (expression, again):
        run = compile_program([version], ["x", "y"])
        numbers = [run.on_numbers()([a, b])[0] for a, b in zip(x, y, strict=True)]
        module = Expression(version, ["x", "y"])(torch.as_tensor(np.stack([x, y], -1)))[:, 0]
        # Rounding, grown by at most eight nested operations on numbers up to 1e4.
        scale = 1.0 + np.abs(expected)
        np.testing.assert_allclose(numbers / scale, expected / scale, rtol=0, atol=1e-9)
        np.testing.assert_allclose(module.detach().numpy() / scale, expected / scale, rtol=0, atol=1e-9)
