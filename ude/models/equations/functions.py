"""The functions that an equation may call, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ude.models.equations import algebra

if TYPE_CHECKING:
    import sympy

NUMERIC: dict[str, Callable[..., float]] = {
    "exp": math.exp,
    "log": math.log,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "tanh": math.tanh,
    "atan": math.atan,
    "abs": math.fabs,
    "min": lambda *x: min(x),
    "max": lambda *x: max(x),
}
"""Basic functions on Python numbers; the others are made of these."""

ALIASES = {"ln": "log", "arctan": "atan", "Abs": "abs", "Min": "min", "Max": "max"}

COMPOSED: dict[str, tuple[str, ...]] = {
    "sqrt": ("x",),
    "log10": ("x",),
    "cot": ("x",),
    "sigmoid": ("x",),
    "mm": ("x", "K"),
    "hill": ("x", "K", "n"),
}
"""Arguments of the functions that are made of others."""

NAMES = (*NUMERIC, *ALIASES, *COMPOSED)


def signature(name: str) -> str:
    """Return how a function is called, for error messages."""
    name = ALIASES.get(name, name)
    if name in ("min", "max"):
        return f"{name}(x, y, ...)"
    return f"{name}({', '.join(COMPOSED.get(name, ('x',)))})"


def accepts(name: str, count: int) -> bool:
    """Say whether the function takes this number of arguments."""
    name = ALIASES.get(name, name)
    return count >= 2 if name in ("min", "max") else count == len(COMPOSED.get(name, ("x",)))


def apply(name: str, arguments: Sequence[sympy.Expr]) -> sympy.Expr:
    r"""Return the expression `name(*arguments)`.

    `hill(x, K, n)` is $x^n / (K^n + x^n)$, `mm(x, K)` is $x / (K + x)$, `sigmoid(x)` is $1 / (1 + e^{-x})$.
    """
    name = ALIASES.get(name, name)
    if name in NUMERIC:
        return _basic(name, arguments)
    return _composed(name, *arguments)


def _basic(name: str, arguments: Sequence[Any]) -> sympy.Expr:
    import sympy

    if not any(argument.free_symbols for argument in arguments):
        return algebra.evaluated(NUMERIC[name], arguments)
    # Not evaluated: sympy would bring in the real and imaginary parts of what it takes for complex symbols.
    if name == "abs":
        return sympy.Abs(*arguments, evaluate=False)
    if name in ("min", "max"):
        return (sympy.Min if name == "min" else sympy.Max)(*arguments, evaluate=False)
    return algebra.add(getattr(sympy, name)(*arguments), sympy.Integer(0))


def _composed(name: str, x: sympy.Expr, *others: sympy.Expr) -> sympy.Expr:
    import sympy

    if name == "sqrt":
        return algebra.power(x, sympy.Rational(1, 2))
    if name == "log10":
        return algebra.divide(apply("log", [x]), algebra.number(math.log(10.0)))
    if name == "cot":
        return algebra.divide(sympy.Integer(1), apply("tan", [x]))
    if name == "sigmoid":
        # The same function as 1 / (1 + exp(-x)), without its overflow.
        half = algebra.multiply(sympy.Rational(1, 2), x)
        return algebra.multiply(sympy.Rational(1, 2), algebra.add(sympy.Integer(1), apply("tanh", [half])))
    if name == "mm":
        return algebra.divide(x, algebra.add(others[0], x))
    k, n = others
    above = algebra.power(x, n)
    return algebra.divide(above, algebra.add(algebra.power(k, n), above))
