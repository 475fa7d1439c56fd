r"""Power series whose coefficients are computed one after the other, when they are asked for.

The rules of `ude.ad.rules.elementwise` are written with these. A function $g$ is known by the pair $(g, g')$: from
$y = g(u)$ and $v = g'(u)$ follows $\dot y = v\,\dot u$, that is

$$k\,y_k = \sum_{j=1}^{k} j\,u_j\,v_{k-j},$$

where $v$ may depend on $y$ itself, since only $v_0, \dots, v_{k-1}$ are needed. Coefficients are normalised,
$c_k = x^{(k)} / k!$, and every operation costs $O(k)$ products for coefficient $k$.

Reference: A. Griewank and A. Walther, Evaluating Derivatives, 2nd edition, 2008, chapter 13.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ude.ad.recording import is_recorded

Coefficient: TypeAlias = "Tensor | float | None"
"""None stands for zero; numbers are not expanded into tensors."""

Rule: TypeAlias = "Callable[[Series], tuple[Series, Series]]"
r"""From the series of $u$ to those of $g(u)$ and of $g'(u)$."""


class Series:
    """A power series; `series[k]` is its coefficient k.

    Args:
        step: Returns coefficient k, given that the ones before are there.
    """

    __slots__ = ("_known", "_step")

    def __init__(self, step: Callable[[int], Coefficient]) -> None:
        self._step = step
        self._known: list[Coefficient] = []
        made = _HERE.made
        if made is not None:
            made.append(self)

    def __getitem__(self, k: int) -> Coefficient:
        known = self._known
        while len(known) <= k:
            known.append(self._step(len(known)))
        return known[k]

    def forget(self) -> None:
        """Let go of all coefficients, and of what they came from."""
        self._step = _forgotten
        self._known.clear()

    @property
    def primal(self) -> Tensor:
        """Coefficient 0."""
        value = self[0]
        assert isinstance(value, Tensor)  # what a function is applied to is a tensor
        return value

    def __add__(self, other: Series | float) -> Series:
        return _affine(self, 1.0, other) if isinstance(other, float | int) else _sum(self, other, 1.0)

    def __radd__(self, other: float) -> Series:
        return self + other

    def __sub__(self, other: Series | float) -> Series:
        return _affine(self, 1.0, -other) if isinstance(other, float | int) else _sum(self, other, -1.0)

    def __rsub__(self, other: float) -> Series:
        return _affine(self, -1.0, other)

    def __neg__(self) -> Series:
        return _affine(self, -1.0, 0.0)

    def __mul__(self, other: Series | float) -> Series:
        return _affine(self, other, 0.0) if isinstance(other, float | int) else Product(self, other)

    def __rmul__(self, other: float) -> Series:
        return self * other

    def __truediv__(self, other: Series | float) -> Series:
        return self * (1.0 / other) if isinstance(other, float | int) else quotient(self, other)

    def __rtruediv__(self, other: float) -> Series:
        return reciprocal(self) * other


def _forgotten(k: int) -> Coefficient:
    raise RuntimeError(f"Coefficient {k} was asked for after its series was given up.")


class Pool:
    """The series made in a stretch of code, to let go of together.

    Series that define each other refer to one another in circles, which Python would free only now and then.
    """

    __slots__ = ("_made", "_outer")

    def __init__(self) -> None:
        self._made: list[Series] = []

    def __enter__(self) -> None:
        self._outer, _HERE.made = _HERE.made, self._made

    def __exit__(self, *_: object) -> None:
        _HERE.made = self._outer

    def forget(self) -> None:
        """Let go of all of them."""
        for series in self._made:
            series.forget()
        self._made.clear()


class _Here(threading.local):
    made: list[Series] | None = None
    """Where series are noted that are made in this thread now."""


_HERE = _Here()


def given(coefficients: Sequence[Coefficient]) -> Series:
    """Return the series with these coefficients, zero after the last."""
    series = Series(_nothing)
    series._known += coefficients
    return series


def _nothing(k: int) -> Coefficient:
    return None


class Point(Series):
    r"""The series $u_0 + \varepsilon$, around which a function is expanded."""

    __slots__ = ()

    def __init__(self, at: Tensor) -> None:
        super().__init__(_nothing)
        self._known += (at, 1.0)


class Product(Series):
    r"""The series of $s\,a\,b + c$ with numbers s and c."""

    __slots__ = ("_factors", "_offset", "_scale")

    def __init__(self, a: Series, b: Series, scale: float = 1.0, offset: float = 0.0) -> None:
        super().__init__(lambda k: _convolution(a, b, k, scale, offset))  # a method would refer to itself in a circle
        self._factors, self._scale, self._offset = (a, b), scale, offset

    def transformed(self, scale: float, offset: float) -> Product:
        """Return `scale` times this plus `offset`."""
        return Product(*self._factors, scale * self._scale, scale * self._offset + offset)


def _convolution(a: Series, b: Series, k: int, scale: float, offset: float) -> Coefficient:
    if a is b:  # by symmetry half of the products
        terms = [(2.0 * scale, a[j], a[k - j]) for j in range((k + 1) // 2)]
        if k % 2 == 0:
            terms.append((scale, a[k // 2], a[k // 2]))
    else:
        terms = [(scale, a[j], b[k - j]) for j in range(k + 1)]
    return accumulate(terms, offset if k == 0 else 0.0)


def integrate(primal: Tensor, u: Series, slope: Series) -> Series:
    r"""Return $y$ with $y_0$ given and $\dot y = v\,\dot u$."""
    return Series(lambda k: primal if k == 0 else _integral(u, slope, k))


def solve(primal: Tensor, u: Series, slope: Callable[[Series], Series]) -> tuple[Series, Series]:
    r"""Return $y$ and $v$ with $y_0$ given, $\dot y = v\,\dot u$ and $v$ a function of $y$."""
    y = Series(lambda k: primal if k == 0 else _integral(u, v, k))
    v = slope(y)
    return y, v


def _integral(u: Series, slope: Series, k: int) -> Coefficient:
    if isinstance(u, Point):
        return times(slope[k - 1], 1.0 / k)
    return accumulate([(j / k, u[j], slope[k - j]) for j in range(k, 0, -1)])


def pinned(primal: Tensor, series: Series) -> Series:
    """Return a series with its coefficient 0 replaced by a more accurate evaluation of the same value."""
    return Series(lambda k: primal if k == 0 else series[k])


def reciprocal(u: Series) -> Series:
    r"""Return $1/u$ from $u\,r = 1$."""
    r = Series(lambda k: u.primal.reciprocal() if k == 0 else times(r[0], _history(u, r, k)))
    return r


def quotient(a: Series, b: Series) -> Series:
    r"""Return $a/b$ from $b\,q = a$."""

    def step(k: int) -> Coefficient:
        if k == 0:
            return a.primal / b.primal
        return times(plus(a[k], _history(b, q, k)), inverse[0])

    inverse = Series(lambda k: b.primal.reciprocal())
    q = Series(step)
    return q


def exp(u: Series, primal: Tensor | None = None) -> Series:
    """Return the exponential."""
    return solve(u.primal.exp() if primal is None else primal, u, lambda y: y)[0]


def power(u: Series, exponent: float, primal: Tensor | None = None) -> Series:
    r"""Return $u^r$ for $u_0 \neq 0$ from $u\,\dot y = r\,y\,\dot u$."""

    def step(k: int) -> Coefficient:
        if k == 0:
            return u.primal**exponent if primal is None else primal
        terms = [((exponent * j - (k - j)) / k, u[j], y[k - j]) for j in range(1, k + 1)]
        return times(accumulate(terms), inverse[0])

    inverse = Series(lambda k: u.primal.reciprocal())
    y = Series(step)
    return y


def select(condition: Tensor, a: Series | float, b: Series | float, dtype: torch.dtype) -> Series:
    """Return a where the condition holds, else b."""

    def step(k: int) -> Coefficient:
        x, y = (_number(s, k) if isinstance(s, float | int) else s[k] for s in (a, b))
        if x is None and y is None:
            return None
        if isinstance(x, Tensor) or isinstance(y, Tensor):
            return torch.where(condition, 0.0 if x is None else x, 0.0 if y is None else y)
        x, y = x or 0.0, y or 0.0
        return condition.to(dtype) * (x - y) + y

    return Series(step)


def constant(value: Tensor) -> Series:
    """Return the series that has only this coefficient 0."""
    return given([value])


def accumulate(terms: Sequence[tuple[float, Coefficient, Coefficient]], offset: float = 0.0) -> Coefficient:
    """Return `offset` plus the sum of `scale * a * b`, by fused operations, in place where nobody looks on."""
    total: Coefficient = offset or None
    in_place, is_own = not is_recorded(), False  # own: the memory of `total` has no other name
    for scale, a, b in terms:
        if a is None or b is None or scale == 0.0:
            continue
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            if not isinstance(total, Tensor):
                total, is_own = _scaled_product(a, b, scale, total or 0.0, in_place=in_place), in_place
            elif is_own and total.shape == a.shape == b.shape:
                total.addcmul_(a, b, value=scale)
            else:
                total, is_own = torch.addcmul(total, a, b, value=scale), in_place
        else:
            factor, rest = (a, b) if isinstance(b, Tensor) else (b, a)
            assert not isinstance(factor, Tensor)  # that was the case before
            total, is_own = _plus_scaled(total, rest, scale * factor), False
    return total


def _scaled_product(a: Tensor, b: Tensor, scale: float, offset: float, *, in_place: bool) -> Tensor:
    product = a * b
    if not in_place:
        product = product if scale == 1.0 else product * scale
        return product if offset == 0.0 else product + offset
    if scale != 1.0:
        product.mul_(number(scale, product))
    return product if offset == 0.0 else product.add_(number(offset, product))


def _plus_scaled(total: Coefficient, rest: Tensor | float, scale: float) -> Coefficient:
    if isinstance(total, Tensor) and isinstance(rest, Tensor):
        return torch.add(total, rest, alpha=scale)
    return plus(total, times(rest, scale))


def times(a: Coefficient, b: Coefficient) -> Coefficient:
    """Return the product of two coefficients."""
    if a is None or b is None:
        return None
    if isinstance(b, float):
        return _scaled(a, b)
    return _scaled(b, a) if isinstance(a, float) else a * b


def plus(a: Coefficient, b: Coefficient) -> Coefficient:
    """Return the sum of two coefficients."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _scaled(a: Tensor | float, scale: float) -> Tensor | float:
    if scale == 1.0:
        return a
    return a * number(scale, a) if isinstance(a, Tensor) and not is_recorded() else a * scale


def number(value: float, like: Tensor) -> Tensor | float:
    """Return a number in the form that torch multiplies fastest by: a tensor made once; not for recorded ones."""
    key = value, like.dtype, like.device
    found = _NUMBERS.get(key)
    if found is not None:
        return found
    # Half precision would round it, and tensors made under a mode of torch are no plain ones.
    if like.dtype not in _FULL_FORMATS or type(like) is not Tensor or len(_NUMBERS) >= _MAX_NUMBERS:
        return value
    with torch.inference_mode(False):
        made = torch.tensor(value, dtype=like.dtype, device=like.device)
    if type(made) is Tensor:
        _NUMBERS[key] = made
    return made


_NUMBERS: dict[Any, Tensor] = {}
_MAX_NUMBERS = 4096
_FULL_FORMATS = {torch.float32, torch.float64, torch.complex64, torch.complex128}


def _shift(a: Coefficient, offset: float) -> Coefficient:
    return a if offset == 0.0 else plus(a, offset)


def _number(value: float, k: int) -> float | None:
    return float(value) if k == 0 else None


def _history(u: Series, y: Series, k: int) -> Coefficient:
    return accumulate([(-1.0, u[j], y[k - j]) for j in range(1, k + 1)])


def _sum(a: Series, b: Series, sign: float) -> Series:
    def step(k: int) -> Coefficient:
        x, y = a[k], b[k]
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return torch.add(x, y, alpha=sign)
        return plus(x, times(y, sign))

    return Series(step)


def _affine(u: Series, scale: float, offset: float) -> Series:
    if isinstance(u, Product):
        return u.transformed(scale, offset)
    return Series(lambda k: _shift(times(u[k], float(scale)), float(offset)) if k == 0 else times(u[k], float(scale)))
