r"""Special functions of every number: error, gamma and Bessel functions.

Bessel functions are pairs $(f_0, f_1)$ coupled by $f_0' = \pm f_1$ and $f_1' = \pm f_0 - f_1 / u$. Near the removable
singularity at zero, where the quotient loses its digits, the rules use the power series of $f_0$ in $u^2$.

Reference: M. Abramowitz and I. Stegun, Handbook of Mathematical Functions, 1964, 6.4 (polygamma) and 9.1, 9.6 (Bessel).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ude.ad.rules.elementwise import Pair, polynomial, rule, sinc
from ude.ad.series import (
    Coefficient,
    Product,
    Series,
    accumulate,
    constant,
    exp,
    integrate,
    pinned,
    quotient,
    reciprocal,
    select,
    solve,
)

# Error functions


def _density(u: Series, width: float) -> Series:
    r"""Return $e^{-u^2 / w}$."""
    return exp((u * u) * (-1.0 / width))


@rule("erf", "special_erf")
def erf(u: Series) -> Pair:
    v = _density(u, 1.0) * (2.0 / math.sqrt(math.pi))
    return integrate(u.primal.erf(), u, v), v


@rule("erfc", "special_erfc")
def erfc(u: Series) -> Pair:
    v = _density(u, 1.0) * (-2.0 / math.sqrt(math.pi))
    return integrate(u.primal.erfc(), u, v), v


@rule("special_erfcx")
def erfcx(u: Series) -> Pair:
    return solve(torch.special.erfcx(u.primal), u, lambda y: (u * y) * 2.0 - 2.0 / math.sqrt(math.pi))


@rule("erfinv", "special_erfinv")
def erfinv(u: Series) -> Pair:
    return solve(u.primal.erfinv(), u, lambda y: exp(y * y) * (0.5 * math.sqrt(math.pi)))


@rule("special_ndtr")
def ndtr(u: Series) -> Pair:
    v = _density(u, 2.0) * (1.0 / math.sqrt(2.0 * math.pi))
    return integrate(torch.special.ndtr(u.primal), u, v), v


@rule("special_ndtri")
def ndtri(u: Series) -> Pair:
    return solve(torch.special.ndtri(u.primal), u, lambda y: exp((y * y) * 0.5) * math.sqrt(2.0 * math.pi))


@rule("special_log_ndtr")
def log_ndtr(u: Series) -> Pair:
    scale = 1.0 / math.sqrt(2.0 * math.pi)
    return solve(torch.special.log_ndtr(u.primal), u, lambda y: exp((u * u) * -0.5 - y) * scale)


# Gamma functions


def _composed(u: Series, coefficient: Callable[[int], Tensor]) -> Series:
    r"""Return $\sum_n c_n (u - u_0)^n$ for a function of which every Taylor coefficient $c_n$ at $u_0$ is known."""
    nilpotent = Series(lambda k: None if k == 0 else u[k])
    powers = [nilpotent]
    coefficients = Series(lambda n: coefficient(n))

    def step(k: int) -> Coefficient:
        if k == 0:
            return coefficients[0]
        while len(powers) < k:
            powers.append(Product(powers[-1], nilpotent))
        return accumulate([(1.0, coefficients[n], powers[n - 1][k]) for n in range(1, k + 1)])

    return Series(step)


def _polygamma(n: int, x: Tensor) -> Tensor:
    return torch.digamma(x) if n == 0 else torch.polygamma(n, x)


@rule("lgamma", "special_gammaln")
def lgamma(u: Series) -> Pair:
    def coefficient(n: int) -> Tensor:
        return u.primal.lgamma() if n == 0 else _polygamma(n - 1, u.primal) / math.factorial(n)

    return _composed(u, coefficient), digamma(u)[0]


@rule("digamma", "special_digamma", "special_psi")
def digamma(u: Series) -> Pair:
    return _polygammas(0, u), _polygammas(1, u)


def polygamma(u: Series, order: int) -> Pair:
    return _polygammas(order, u), _polygammas(order + 1, u)


def _polygammas(order: int, u: Series) -> Series:
    return _composed(u, lambda n: _polygamma(order + n, u.primal) / math.factorial(n))


def zeta(u: Series, exponent: float) -> Pair:
    r"""Return Hurwitz's $\zeta(s, u)$, whose derivative is $-s\,\zeta(s + 1, u)$."""

    def series(s: float, scale: float) -> Series:
        def coefficient(n: int) -> Tensor:
            rising = math.prod(-(s + i) for i in range(n)) / math.factorial(n)
            return torch.special.zeta(u.primal.new_tensor(s + n), u.primal) * (scale * rising)

        return _composed(u, coefficient)

    return series(exponent, 1.0), series(exponent + 1.0, -exponent)


def incomplete_gamma(u: Series, a: Tensor, upper: bool) -> Pair:
    r"""Return $P(a, u)$ or $Q(a, u)$, whose derivatives are $\pm u^{a-1} e^{-u} / \Gamma(a)$."""
    logarithm = integrate(u.primal.log(), u, reciprocal(u))
    density = exp(logarithm * constant(a - 1.0) - u - constant(a.lgamma()))
    slope = -density if upper else density
    value = torch.special.gammaincc(a, u.primal) if upper else torch.special.gammainc(a, u.primal)
    return integrate(value, u, slope), slope


@rule("special_entr")
def entr(u: Series) -> Pair:
    logarithm = integrate(u.primal.log(), u, reciprocal(u))
    return pinned(torch.special.entr(u.primal), -(u * logarithm)), -(logarithm + 1.0)


# Bessel functions


class _Known(torch.autograd.Function):
    """A Bessel function that autograd can differentiate, which torch's cannot be."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, name: str) -> Tensor:
        return getattr(torch.special, name)(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.name = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        zeroth, first = ctx.name[:-1] + "0", ctx.name[:-1] + "1"
        if ctx.name == zeroth:
            return -bar * _known(x, first), None
        sign = -1.0 if "modified" in ctx.name else 1.0
        ratio = torch.where(x == 0, 0.5, _known(x, first) / torch.where(x == 0, 1.0, x))
        return bar * (sign * _known(x, zeroth) - ratio), None


def _known(x: Tensor, name: str) -> Tensor:
    return _Known.apply(x, name)  # pyright: ignore[reportReturnType]


def _bessel(u: Series, f0: Tensor, f1: Tensor, sign: float, flip: float) -> tuple[Series, Series]:
    r"""Return the pair with $f_0' = \sigma f_1$ and $f_1' = \tau f_0 - f_1 / u$."""
    first: Series
    second: Series
    first = Series(lambda k: zeroth[k])
    second = Series(lambda k: one[k])
    zeroth = integrate(f0, u, second * sign)
    one = integrate(f1, u, first * flip - quotient(second, u))
    return first, second


def _regular(u: Series, f0: Tensor, f1: Tensor, sign: float) -> tuple[Series, Series]:
    r"""Return $(J_0, J_1)$ for sign -1, $(I_0, I_1)$ for sign 1; both are power series in $u^2$ near zero."""
    near, dtype = u.primal.abs() < _NEAR, u.primal.dtype
    shifted = select(near, u + 2.0 * _NEAR, u, dtype)  # away from zero, where the result is not used
    far0, far1 = _bessel(shifted, f0, f1, sign, 1.0)
    w = select(near, u * u, 0.0, dtype)
    y0 = select(near, polynomial(w, [sign**n * value for n, value in enumerate(_BESSEL0)]), far0, dtype)
    y1 = select(near, polynomial(w, [sign**n * value for n, value in enumerate(_BESSEL1)]) * u, far1, dtype)
    return pinned(f0, y0), pinned(f1, y1)


_NEAR = 2.0
_TERMS = 18
_BESSEL0 = [0.25**n / math.factorial(n) ** 2 for n in range(_TERMS)]
_BESSEL1 = [0.5 * 0.25**n / (math.factorial(n) * math.factorial(n + 1)) for n in range(_TERMS)]


def _ratio(y1: Series, u: Series, sign: float) -> Series:
    r"""Return $f_1 / u$, which is regular at zero."""
    near, dtype = u.primal.abs() < _NEAR, u.primal.dtype
    w = select(near, u * u, 0.0, dtype)
    away = select(near, u + 2.0 * _NEAR, u, dtype)
    return select(near, polynomial(w, [sign**n * value for n, value in enumerate(_BESSEL1)]), quotient(y1, away), dtype)


@rule("special_bessel_j0")
def bessel_j0(u: Series) -> Pair:
    y0, y1 = _regular(u, _known(u.primal, "bessel_j0"), _known(u.primal, "bessel_j1"), -1.0)
    return y0, -y1


@rule("special_bessel_j1")
def bessel_j1(u: Series) -> Pair:
    y0, y1 = _regular(u, _known(u.primal, "bessel_j0"), _known(u.primal, "bessel_j1"), -1.0)
    return y1, y0 - _ratio(y1, u, -1.0)


@rule("special_bessel_y0")
def bessel_y0(u: Series) -> Pair:
    y0, y1 = _bessel(u, _known(u.primal, "bessel_y0"), _known(u.primal, "bessel_y1"), -1.0, 1.0)
    return y0, -y1


@rule("special_bessel_y1")
def bessel_y1(u: Series) -> Pair:
    y0, y1 = _bessel(u, _known(u.primal, "bessel_y0"), _known(u.primal, "bessel_y1"), -1.0, 1.0)
    return y1, y0 - quotient(y1, u)


@rule("i0", "special_i0", "special_modified_bessel_i0")
def i0(u: Series) -> Pair:
    return _regular(u, torch.special.i0(u.primal), torch.special.i1(u.primal), 1.0)


@rule("special_i1", "special_modified_bessel_i1")
def i1(u: Series) -> Pair:
    y0, y1 = _regular(u, torch.special.i0(u.primal), torch.special.i1(u.primal), 1.0)
    return y1, y0 - _ratio(y1, u, 1.0)


@rule("special_i0e")
def i0e(u: Series) -> Pair:
    y0, y1, _ = _damped(u)
    return y0, y1 - y0 * constant(u.primal.sign())


@rule("special_i1e")
def i1e(u: Series) -> Pair:
    y0, y1, ratio = _damped(u)
    return y1, y0 - ratio() - y1 * constant(u.primal.sign())


def _damped(u: Series) -> tuple[Series, Series, Callable[[], Series]]:
    r"""Return $e^{-|u|} I_0$, $e^{-|u|} I_1$ and what makes $e^{-|u|} I_1 / u$; far from zero without forming $I_0$."""
    x, dtype = u.primal, u.primal.dtype
    near, sign = x.abs() < _NEAR, constant(x.sign())
    inner = select(near, u, 0.0, dtype)
    decay = exp(-(inner * sign))
    close0, close1 = _regular(inner, torch.special.i0(inner.primal), torch.special.i1(inner.primal), 1.0)
    v0, v1 = torch.special.i0e(x), torch.special.i1e(x)
    away = select(near, u + 2.0 * _NEAR, u, dtype)
    far0: Series
    far1: Series
    far0 = Series(lambda k: zeroth[k])
    far1 = Series(lambda k: first[k])
    zeroth = integrate(v0, away, far1 - far0 * sign)
    first = integrate(v1, away, far0 - quotient(far1, away) - far1 * sign)
    y0 = pinned(v0, select(near, close0 * decay, far0, dtype))
    y1 = pinned(v1, select(near, close1 * decay, far1, dtype))

    def ratio() -> Series:  # a series that nobody uses would not be forgotten
        return select(near, _ratio(close1, inner, 1.0) * decay, quotient(far1, away), dtype)

    return y0, y1, ratio


@rule("special_modified_bessel_k0")
def bessel_k0(u: Series) -> Pair:
    y0, y1 = _bessel(u, _known(u.primal, "modified_bessel_k0"), _known(u.primal, "modified_bessel_k1"), -1.0, -1.0)
    return y0, -y1


@rule("special_modified_bessel_k1")
def bessel_k1(u: Series) -> Pair:
    y0, y1 = _bessel(u, _known(u.primal, "modified_bessel_k0"), _known(u.primal, "modified_bessel_k1"), -1.0, -1.0)
    return y1, -y0 - quotient(y1, u)


@rule("special_spherical_bessel_j0")
def spherical_bessel_j0(u: Series) -> Pair:
    y, v = sinc(u * (1.0 / math.pi))
    return y, v * (1.0 / math.pi)


def tensor_power(u: Series, exponent: Tensor) -> Pair:
    r"""Return $u^r$ with an exponent for every number, from $c_n = \binom{r}{n} u_0^{r - n}$."""

    def series(r: Tensor) -> Series:
        def coefficient(n: int) -> Tensor:
            binomial = torch.ones_like(r)
            for i in range(n):
                binomial = binomial * (r - i) / (i + 1)
            # Past the degree of a polynomial the power of zero is infinite, but its factor is zero.
            return torch.where(binomial == 0, torch.zeros_like(u.primal), binomial * u.primal ** (r - n))

        return _composed(u, coefficient)

    slope = series(exponent - 1.0)
    flat = exponent == 0
    return series(exponent), select(flat, 0.0, slope * constant(exponent), u.primal.dtype)
