"""Build sympy expressions node by node, so that no step can take long or leave the real numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sympy

MAX_EXPONENT = 100
MAX_DEGREE = 1000
_EXACT = 10**15
_TOO_LARGE = "This number is too large for floating-point arithmetic."


class AlgebraError(Exception):
    """An operation that an equation may not contain; the message is a sentence."""


def number(value: float | int) -> sympy.Expr:
    """Return the sympy number of a Python one: exact for integers of at most 15 digits."""
    import sympy

    if isinstance(value, int) and abs(value) <= _EXACT:
        return sympy.Integer(value)
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise AlgebraError(_TOO_LARGE)
    return sympy.Float(value)


def parse_number(text: str) -> sympy.Expr:
    """Return the number written as `text`; exact if it has neither a point nor an exponent."""
    return number(int(text) if text.isdigit() and len(text) <= 16 else float(text))


def add(left: sympy.Expr, right: sympy.Expr) -> sympy.Expr:
    """Return the sum."""
    import sympy

    return _settled(sympy.Add(left, right))


def multiply(left: sympy.Expr, right: sympy.Expr) -> sympy.Expr:
    """Return the product."""
    import sympy

    return _settled(sympy.Mul(left, right))


def divide(left: sympy.Expr, right: sympy.Expr) -> sympy.Expr:
    """Return the quotient."""
    if right.is_zero:
        raise AlgebraError("This divides by zero.")
    return multiply(left, power(right, number(-1)))


def power(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    """Return `base ** exponent`. Numbers are worked out in floating point, never as huge integers."""
    import sympy

    if not exponent.free_symbols:
        exponent = _whole(exponent)
        if abs(float(exponent)) > MAX_EXPONENT:
            raise AlgebraError(f"An exponent may be at most {MAX_EXPONENT}.")
        if not base.free_symbols:
            return _number_power(base, exponent)
        if degree(base) * abs(float(exponent)) > MAX_DEGREE:
            raise AlgebraError(f"Powers of powers may reach degree {MAX_DEGREE} at most.")
    return _settled(sympy.Pow(base, exponent))


def degree(expression: Any) -> float:
    """Return a bound on the exponents that sympy may multiply out when it raises `expression` to a power."""
    if expression.is_Pow:
        base, exponent = expression.as_base_exp()
        return degree(base) * (1.0 if exponent.free_symbols else max(1.0, abs(float(exponent))))
    if expression.is_Mul:
        return sum(degree(factor) for factor in expression.args)
    if expression.is_Add:
        return max(degree(term) for term in expression.args)
    return 1.0


def _number_power(base: Any, exponent: Any) -> sympy.Expr:
    import sympy

    exact = isinstance(base, sympy.Rational) and isinstance(exponent, sympy.Integer)
    if exact and base.is_zero is False and abs(float(exponent) * math.log2(max(abs(base.p), base.q))) < 50:
        return sympy.Pow(base, exponent)
    return evaluated(lambda a, b: a**b, [base, exponent])


def evaluated(f: Callable[..., Any], arguments: Sequence[sympy.Expr]) -> sympy.Expr:
    """Return the number `f(*arguments)`, worked out in floating point."""
    try:
        value = f(*map(float, arguments))
    except (OverflowError, ZeroDivisionError, ValueError) as error:
        raise AlgebraError("This has no finite value.") from error
    if isinstance(value, complex):
        raise AlgebraError("This is not a real number.")
    return number(float(value))


def _whole(exponent: Any) -> sympy.Expr:
    """Return an exponent such as 2.0 as the integer 2."""
    import sympy

    if isinstance(exponent, sympy.Float) and float(exponent).is_integer() and abs(exponent) <= MAX_EXPONENT:
        return sympy.Integer(int(exponent))
    return exponent


def _settled(expression: Any) -> sympy.Expr:
    """Check the numbers that one operation can have made: the expression itself and its leading coefficient."""
    for part in (expression, *expression.args[:1]):
        if part.is_Number or part.is_infinite or part is _nan():
            checked(part)
    return number(_as_float(expression)) if _is_long(expression) else expression


def checked(expression: Any) -> sympy.Expr:
    """Refuse what is not finite and real; turn exact numbers that have grown long into floating point."""
    import sympy

    if expression.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo, sympy.I):
        raise AlgebraError("This has no finite real value; it divides by zero, for example.")
    if not all(math.isfinite(float(x)) for x in expression.atoms(sympy.Float)):
        raise AlgebraError(_TOO_LARGE)
    long = {x: number(_as_float(x)) for x in expression.atoms(sympy.Rational) if _is_long(x)}
    return expression.xreplace(long) if long else expression


def _is_long(x: Any) -> bool:
    import sympy

    return isinstance(x, sympy.Rational) and max(abs(x.p), x.q) > _EXACT


def _as_float(x: Any) -> float:
    try:
        return int(x.p) / int(x.q)
    except OverflowError as error:
        raise AlgebraError(_TOO_LARGE) from error


def _nan() -> sympy.Expr:
    import sympy

    return sympy.nan
