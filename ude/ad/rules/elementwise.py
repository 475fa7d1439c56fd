r"""Functions applied to every number: the pair $(g, g')$ of each, as power series.

A rule takes the series of $u$, and numbers, and returns the series of $g(u)$ and of $g'(u)$; see `ude.ad.series`. A
rule named after a torch function needs no further words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from ude.ad.series import (
    Coefficient,
    Series,
    constant,
    exp,
    integrate,
    pinned,
    power,
    quotient,
    reciprocal,
    select,
    solve,
)

Pair: TypeAlias = tuple[Series, Series]
Elementwise: TypeAlias = Callable[..., Pair]

RULES: dict[str, Elementwise] = {}
"""Rules by the name of the function in torch, `torch.nn.functional` or `torch.special`."""


def rule(*names: str) -> Callable[[Elementwise], Elementwise]:
    """Enter a rule under these names, or under its own."""

    def enter(function: Elementwise) -> Elementwise:
        for name in names or (function.__name__.rstrip("_"),):
            RULES[name] = function
        return function

    return enter


def inside(condition: Tensor, y: Series, v: Series | float) -> Pair:
    """Return y where the condition holds, elsewhere its value alone."""
    outside = constant(y.primal)
    dtype = y.primal.dtype
    return select(condition, y, outside, dtype), select(condition, v, 0.0, dtype)


# Exponentials and logarithms


@rule("exp")
def exponential(u: Series) -> Pair:
    y = exp(u)
    return y, y


@rule("exp2", "special_exp2")
def exp2(u: Series) -> Pair:
    y = exp(u * math.log(2.0), u.primal.exp2())
    return y, y * math.log(2.0)


@rule("expm1", "special_expm1")
def expm1(u: Series) -> Pair:
    v = exp(u)
    return integrate(u.primal.expm1(), u, v), v


def _logarithm(primal: Tensor, u: Series, base: float) -> Pair:
    v = reciprocal(u) * (1.0 / math.log(base)) if base != math.e else reciprocal(u)
    return integrate(primal, u, v), v


@rule()
def log(u: Series) -> Pair:
    return _logarithm(u.primal.log(), u, math.e)


@rule()
def log2(u: Series) -> Pair:
    return _logarithm(u.primal.log2(), u, 2.0)


@rule()
def log10(u: Series) -> Pair:
    return _logarithm(u.primal.log10(), u, 10.0)


@rule("log1p", "special_log1p")
def log1p(u: Series) -> Pair:
    v = reciprocal(u + 1.0)
    return integrate(u.primal.log1p(), u, v), v


@rule("logit", "special_logit")
def logit(u: Series, eps: float | None = None) -> Pair:
    v = reciprocal(u - u * u)
    y = integrate(u.primal.logit(eps), u, v)
    if eps is None:
        return y, v
    return inside((u.primal >= eps) & (u.primal <= 1.0 - eps), y, v)


# Powers


@rule()
def pow_(u: Series, exponent: float) -> Pair:
    if float(exponent).is_integer() and exponent >= 0:
        return integer_power(u, int(exponent))
    y = power(u, exponent, u.primal**exponent)
    return _at_zero(u, exponent, y), _at_zero(u, exponent - 1.0, power(u, exponent - 1.0)) * exponent


def _at_zero(u: Series, exponent: float, y: Series) -> Series:
    """Return the power with those coefficients that vanish where u does, which the recurrence divides by zero."""
    if exponent <= 1.0:
        return y

    def step(k: int) -> Coefficient:
        coefficient = y[k]
        if k == 0 or k >= exponent or not isinstance(coefficient, Tensor):
            return coefficient
        return torch.where(u.primal == 0, torch.zeros_like(coefficient), coefficient)

    return Series(step)


def integer_power(u: Series, exponent: int) -> Pair:
    r"""Return $u^n$ and $n u^{n-1}$ by repeated squaring, which has no singularity at zero."""
    if exponent == 0:
        return constant(torch.ones_like(u.primal)), constant(torch.zeros_like(u.primal))
    return pinned(u.primal**exponent, _by_squaring(u, exponent)), _by_squaring(u, exponent - 1) * float(exponent)


def _by_squaring(u: Series, exponent: int) -> Series:
    if exponent == 0:
        return constant(torch.ones_like(u.primal))
    if exponent == 1:
        return u
    half = _by_squaring(u, exponent // 2)
    return half * half if exponent % 2 == 0 else (half * half) * u


@rule()
def square(u: Series) -> Pair:
    return u * u, u * 2.0


@rule()
def sqrt(u: Series) -> Pair:
    y = power(u, 0.5, u.primal.sqrt())
    return y, reciprocal(y) * 0.5


@rule()
def rsqrt(u: Series) -> Pair:
    return power(u, -0.5, u.primal.rsqrt()), power(u, -1.5) * -0.5


@rule("reciprocal")
def inverse(u: Series) -> Pair:
    y = reciprocal(u)
    return y, -(y * y)


# Circular and hyperbolic functions


def _circular(u: Series, sine: Tensor, cosine: Tensor, sign: float) -> Pair:
    r"""Return s and c with $\dot s = c\,\dot u$, $\dot c = \pm s\,\dot u$."""
    s: Series
    c: Series
    s = Series(lambda k: antiderivative_s[k])
    c = Series(lambda k: antiderivative_c[k])
    antiderivative_s = integrate(sine, u, c)
    antiderivative_c = integrate(cosine, u, s * sign)
    return s, c


@rule()
def sin(u: Series) -> Pair:
    return _circular(u, u.primal.sin(), u.primal.cos(), -1.0)


@rule()
def cos(u: Series) -> Pair:
    s, c = _circular(u, u.primal.sin(), u.primal.cos(), -1.0)
    return c, -s


@rule()
def sinh(u: Series) -> Pair:
    return _circular(u, u.primal.sinh(), u.primal.cosh(), 1.0)


@rule()
def cosh(u: Series) -> Pair:
    s, c = _circular(u, u.primal.sinh(), u.primal.cosh(), 1.0)
    return c, s


@rule()
def tan(u: Series) -> Pair:
    return solve(u.primal.tan(), u, lambda y: y * y + 1.0)


@rule()
def tanh(u: Series) -> Pair:
    return solve(u.primal.tanh(), u, lambda y: 1.0 - y * y)


@rule("asin", "arcsin")
def asin(u: Series) -> Pair:
    v = power(1.0 - u * u, -0.5)
    return integrate(u.primal.asin(), u, v), v


@rule("acos", "arccos")
def acos(u: Series) -> Pair:
    v = -power(1.0 - u * u, -0.5)
    return integrate(u.primal.acos(), u, v), v


@rule("atan", "arctan")
def atan(u: Series) -> Pair:
    v = reciprocal(u * u + 1.0)
    return integrate(u.primal.atan(), u, v), v


@rule("asinh", "arcsinh")
def asinh(u: Series) -> Pair:
    v = power(u * u + 1.0, -0.5)
    return integrate(u.primal.asinh(), u, v), v


@rule("acosh", "arccosh")
def acosh(u: Series) -> Pair:
    v = power(u * u - 1.0, -0.5)
    return integrate(u.primal.acosh(), u, v), v


@rule("atanh", "arctanh")
def atanh(u: Series) -> Pair:
    v = reciprocal(1.0 - u * u)
    return integrate(u.primal.atanh(), u, v), v


# Smooth activations


@rule("sigmoid", "special_expit")
def sigmoid(u: Series) -> Pair:
    return solve(u.primal.sigmoid(), u, lambda y: y - y * y)


@rule("logsigmoid", "log_sigmoid")
def logsigmoid(u: Series) -> Pair:
    v = sigmoid(-u)[0]
    return integrate(F.logsigmoid(u.primal), u, v), v


@rule()
def softplus(u: Series, beta: float = 1.0, threshold: float = 20.0) -> Pair:
    v = sigmoid(u * float(beta))[0]
    y = integrate(F.softplus(u.primal, beta, threshold), u, v)
    linear = u.primal * beta > threshold
    return select(linear, u, y, u.primal.dtype), select(linear, 1.0, v, u.primal.dtype)


@rule()
def silu(u: Series, inplace: bool = False) -> Pair:
    s, slope = sigmoid(u)
    return pinned(F.silu(u.primal), u * s), s + u * slope


@rule()
def gelu(u: Series, approximate: str = "none") -> Pair:
    value = F.gelu(u.primal, approximate=approximate)
    if approximate == "tanh":
        inner = (u + (u * u * u) * 0.044715) * math.sqrt(2.0 / math.pi)
        t, slope = tanh(inner)
        steep = ((u * u) * (3.0 * 0.044715) + 1.0) * math.sqrt(2.0 / math.pi)
        return pinned(value, (u * (t + 1.0)) * 0.5), (t + 1.0) * 0.5 + (u * slope * steep) * 0.5
    density = exp((u * u) * -0.5) * (1.0 / math.sqrt(2.0 * math.pi))
    distribution = integrate(torch.special.ndtr(u.primal), u, density)
    return pinned(value, u * distribution), distribution + u * density


@rule()
def mish(u: Series, inplace: bool = False) -> Pair:
    s, rate = softplus(u)
    t, slope = tanh(s)
    return pinned(F.mish(u.primal), u * t), t + u * slope * rate


@rule()
def softsign(u: Series) -> Pair:
    sign = constant(u.primal.sign())
    r = reciprocal(u * sign + 1.0)
    return pinned(F.softsign(u.primal), u * r), r * r


@rule()
def tanhshrink(u: Series) -> Pair:
    y, _ = tanh(u)
    return pinned(F.tanhshrink(u.primal), u - y), y * y


@rule("sinc", "special_sinc")
def sinc(u: Series) -> Pair:
    r"""Return $\sin(\pi u) / (\pi u)$; near zero, where the quotient loses its digits, its power series."""
    x = u * math.pi
    s, c = sin(x)
    near = u.primal.abs() < _NEAR
    away = select(near, constant(torch.ones_like(u.primal)), x, u.primal.dtype)
    y = select(near, polynomial(x * x, _SINC), quotient(s, away), u.primal.dtype)
    slope = select(near, polynomial(x * x, _SINC_SLOPE) * x, quotient(c - quotient(s, away), away), u.primal.dtype)
    return pinned(torch.sinc(u.primal), y), slope * math.pi


_NEAR = 0.3
_SINC = [(-1.0) ** n / math.factorial(2 * n + 1) for n in range(12)]
_SINC_SLOPE = [(-1.0) ** (n + 1) * 2 * (n + 1) / math.factorial(2 * n + 3) for n in range(12)]


def polynomial(x: Series, coefficients: list[float]) -> Series:
    """Return the sum of coefficients times powers."""
    total = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        total = total * x + coefficient
    return total
