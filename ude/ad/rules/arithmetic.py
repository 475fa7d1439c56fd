"""Arithmetic of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ude.ad.rules import piecewise, special
from ude.ad.rules.elementwise import pow_
from ude.ad.rules.kinds import as_operand, bilinear, is_lifted, joined, multiplied, pinned, value_of
from ude.ad.rules.table import functions_named, register, register_names


def add(input: Any, other: Any, *, alpha: float = 1.0) -> Any:
    """Return a + alpha b."""
    if not is_lifted(input):
        return other.scaled(alpha).plus(input) if alpha != 1.0 else other.plus(input)
    if is_lifted(other) or not isinstance(other, Tensor):
        return input.plus(other, alpha)
    return input.plus(other if alpha == 1.0 else alpha * other)


def sub(input: Any, other: Any, *, alpha: float = 1.0) -> Any:
    """Return a - alpha b."""
    return add(input, other, alpha=-alpha)


def mul(input: Any, other: Any) -> Any:
    """Return a b, number by number."""
    if is_lifted(input) and is_lifted(other):
        return input.times(other)
    return input.scaled(other) if is_lifted(input) else other.scaled(input)


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """Return a / b, number by number."""
    if rounding_mode is not None:
        return torch.div(value_of(input), value_of(other), rounding_mode=rounding_mode)
    if is_lifted(other):
        above = value_of(input)
        if isinstance(above, Tensor) and above.dtype != other.dtype:
            other = other.to((above / other.value).dtype)  # before the reciprocal, for its digits
        return mul(input, other.reciprocal())
    if not isinstance(other, Tensor):
        return input.mapped(lambda x: x / other)
    return joined(lambda x: x / other, input) if other.ndim else input.mapped(lambda x: x / other)


def power(input: Any, exponent: Any) -> Any:
    """Return a to the power of b."""
    if not is_lifted(input):
        dtype = torch.result_type(input, exponent.value)  # before the logarithm, for its digits
        return torch.exp(exponent * torch.as_tensor(input, dtype=dtype, device=exponent.device).log())
    if is_lifted(exponent) or isinstance(exponent, complex) or _is_parameter(exponent):
        return torch.exp(exponent * torch.log(input))
    if not isinstance(exponent, Tensor):
        return input.elementwise(lambda u: pow_(u, float(exponent)))
    shape, dtype = torch.broadcast_shapes(input.shape, exponent.shape), torch.result_type(input.value, exponent)
    wide = exponent.to(dtype).expand(shape)
    return input.to(dtype).expand(shape).elementwise(lambda u: special.tensor_power(u, wide))


def float_power(input: Any, exponent: Any) -> Any:
    """Return a to the power of b in double precision."""
    return power(_in_double(input), _in_double(exponent))


def _in_double(x: Any) -> Any:
    if not (is_lifted(x) or isinstance(x, Tensor)):
        return x
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def _is_parameter(x: Any) -> bool:
    """Whether derivatives by an exponent are wanted too; they exist for positive bases only."""
    return isinstance(x, Tensor) and (x.requires_grad or x.is_complex())


def addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1.0) -> Any:
    """Return a + value b c."""
    return add(input, _times(tensor1, tensor2), alpha=value)


def addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1.0) -> Any:
    """Return a + value b / c."""
    return add(input, tensor1 / tensor2, alpha=value)


def _times(a: Any, b: Any) -> Any:
    return a * b


def lerp(input: Any, end: Any, weight: Any) -> Any:
    """Return a + w (b - a)."""
    return input + weight * (end - input)


def hypot(input: Any, other: Any) -> Any:
    r"""Return $\sqrt{a^2 + b^2}$."""
    return pinned((input * input + other * other).sqrt(), torch.hypot(value_of(input), value_of(other)))


def atan2(input: Any, other: Any) -> Any:
    r"""Return the angle of (b, a): that of the values plus the arctangent in axes turned by it."""
    y, x = value_of(input), value_of(other)
    square = x * x + y * y
    along, across = (other * x + input * y) / square, (input * x - other * y) / square
    return pinned(torch.atan(across / along), torch.atan2(y, x))


def xlogy(input: Any, other: Any) -> Any:
    r"""Return $a \log b$, zero where a is."""
    return _weighted_logarithm(input, other, torch.log, torch.special.xlogy, 0.0)


def xlog1py(input: Any, other: Any) -> Any:
    r"""Return $a \log(1 + b)$, zero where a is."""
    return _weighted_logarithm(input, other, torch.log1p, torch.special.xlog1py, -1.0)


def _weighted_logarithm(a: Any, b: Any, logarithm: Any, function: Any, edge: float) -> Any:
    a, b = as_operand(a, b), as_operand(b, a)
    x, y = value_of(a), value_of(b)
    safe = torch.where((x == 0) & (y <= edge), torch.ones((), dtype=b.dtype, device=b.device), b)
    product = a * logarithm(safe)
    if not is_lifted(safe) and not is_lifted(b):
        return product
    return pinned(product, function(x, y))


def logaddexp(input: Any, other: Any) -> Any:
    r"""Return $\log(e^a + e^b)$."""
    return _logarithm_of_sum(input, other, torch.exp, torch.log, torch.logaddexp)


def logaddexp2(input: Any, other: Any) -> Any:
    r"""Return $\log_2(2^a + 2^b)$."""
    return _logarithm_of_sum(input, other, torch.exp2, torch.log2, torch.logaddexp2)


def _logarithm_of_sum(a: Any, b: Any, exp: Any, log: Any, function: Any) -> Any:
    x, y = value_of(a), value_of(b)
    top = torch.maximum(x, y).detach()
    top = torch.where(top.isinf(), torch.zeros_like(top), top)
    return pinned(log(exp(a - top) + exp(b - top)), function(x, y))


def modulo(rounding_mode: str) -> Callable[[Any, Any], Any]:
    """Make the rule of a remainder: the quotient is a whole number, which has no derivative."""

    def handler(input: Any, other: Any) -> Any:
        x, y = value_of(input), value_of(other)
        quotient = torch.div(x, y, rounding_mode=rounding_mode).detach()
        value = torch.fmod(x, y) if rounding_mode == "trunc" else torch.remainder(x, y)
        return pinned(input - other * quotient, value)

    return handler


def copysign(input: Any, other: Any) -> Any:
    """Return a with the sign of b."""
    x, y = value_of(input), value_of(other)
    if not is_lifted(input):
        return torch.copysign(x, y)
    ratio = torch.copysign(torch.ones_like(x), y) * torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    return input * torch.where(x == 0, torch.zeros_like(ratio), ratio)


def ldexp(input: Any, other: Any) -> Any:
    """Return a times two to the power of b."""
    return input * torch.pow(2.0, other)


def complex_(real: Any, imag: Any) -> Any:
    """Return the complex numbers with these parts."""
    return joined(torch.complex, real, imag)


def polar(abs: Any, angle: Any) -> Any:
    """Return the complex numbers with this modulus and angle."""
    return complex_(abs * torch.cos(angle), abs * torch.sin(angle))


def angle(input: Any) -> Any:
    """Return the angle of complex numbers; of real ones a constant."""
    return atan2(input.imag, input.real) if input.is_complex() else torch.angle(input.value)


def absolute(input: Any) -> Any:
    """Return the modulus, of complex numbers along a real parameter."""
    if input.is_complex():
        return hypot(input.real, input.imag)
    return input.elementwise(piecewise.absolute)


def sgn(input: Any) -> Any:
    """Return x / |x|."""
    return input / absolute(input) if input.is_complex() else torch.sgn(input.value)


def polygamma(n: Any, input: Any) -> Any:
    """Return the polygamma function; its order comes first, except as a method."""
    order, x = (input, n) if is_lifted(n) else (n, input)
    return x.elementwise(lambda u: special.polygamma(u, int(order)))


def zeta(input: Any, other: Any) -> Any:
    """Return the Hurwitz zeta function of a plain exponent, one for all."""
    if is_lifted(input) or (isinstance(input, Tensor) and input.ndim):
        raise NotImplementedError("Expected derivatives of `zeta` by its second argument, the first being a number.")
    return other.elementwise(lambda u: special.zeta(u, float(input)))


def incomplete_gamma(upper: bool) -> Callable[[Any, Any], Any]:
    """Make the rule of a regularised incomplete gamma function of plain parameters."""

    def handler(input: Any, other: Any) -> Any:
        if is_lifted(input):
            raise NotImplementedError("Expected derivatives of `gammainc` by its second argument only.")
        shape, dtype = torch.broadcast_shapes(input.shape, other.shape), torch.result_type(input, other.value)
        a = input.to(dtype).expand(shape)
        return other.to(dtype).expand(shape).elementwise(lambda u: special.incomplete_gamma(u, a, upper))

    return handler


def mvlgamma(input: Any, p: int) -> Any:
    """Return the logarithm of the multivariate gamma function."""
    total = 0.25 * p * (p - 1) * math.log(math.pi)
    for i in range(p):
        total = total + torch.lgamma(input - 0.5 * i)
    return total


def linear_layer(input: Any, weight: Any, bias: Any = None) -> Any:
    """Return x W^T + b."""
    if is_lifted(weight) or not is_lifted(input):
        product = torch.matmul(input, weight.mT if weight.ndim > 1 else weight)
        return product if bias is None else product + bias
    if is_lifted(bias):
        return linear_layer(input, weight) + bias
    return input.layer(weight, bias)


def reversed_(handler: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Exchange the operands."""
    return lambda a, b: handler(b, a)


_PRODUCTS = ["matmul", "mm", "bmm", "mv", "dot", "vdot", "inner", "outer", "ger", "kron", "cross", "tensordot"]
_PRODUCTS += ["linalg_cross", "vecdot", "linalg_vecdot"]


def install() -> None:
    """Enter the rules of this file."""
    for name in _PRODUCTS:
        for function in functions_named(name):
            register(function, bilinear(function))
    register_names(add, "add", "__add__", "__radd__")
    register_names(sub, "sub", "subtract", "__sub__")
    register_names(reversed_(sub), "__rsub__")
    register_names(lambda a, b, *, alpha=1.0: sub(b, a, alpha=alpha), "rsub")
    register_names(mul, "mul", "multiply", "__mul__", "__rmul__")
    register_names(div, "div", "divide", "true_divide", "__truediv__", "__div__")
    register_names(reversed_(div), "__rtruediv__", "__rdiv__")
    register_names(power, "pow", "__pow__")
    register_names(float_power, "float_power")
    register_names(reversed_(power), "__rpow__")
    register_names(lambda x: x, "__pos__")
    register_names(bilinear(torch.matmul), "__matmul__")
    register_names(lambda a, b: multiplied(torch.matmul, b, a), "__rmatmul__")
    register_names(absolute, "abs", "absolute", "__abs__")
    register_names(modulo("trunc"), "fmod")
    register_names(modulo("floor"), "remainder", "__mod__")
    register_names(reversed_(modulo("floor")), "__rmod__")
    register_names(atan2, "atan2", "arctan2")
    register_names(xlogy, "xlogy", "special_xlogy")
    register_names(xlog1py, "xlog1py", "special_xlog1py")
    register_names(complex_, "complex")
    register_names(polygamma, "polygamma", "special_polygamma")
    register_names(zeta, "zeta", "special_zeta")
    register_names(incomplete_gamma(upper=False), "igamma", "gammainc", "special_gammainc")
    register_names(incomplete_gamma(upper=True), "igammac", "gammaincc", "special_gammaincc")
    register_names(mvlgamma, "mvlgamma", "multigammaln", "special_multigammaln")
    register_names(linear_layer, "linear")
    for handler in (addcmul, addcdiv, lerp, hypot, logaddexp, logaddexp2, copysign, ldexp, polar, angle, sgn):
        register_names(handler, handler.__name__)
