"""Functions of every number with kinks.

They take the side that the value is on, as autograd does, and have no higher derivatives there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ude.ad.rules.elementwise import Pair, inside, rule
from ude.ad.series import Series, constant, exp, given, pinned, select


def _flat(primal: Tensor) -> Pair:
    """Return a function that is constant where it has a derivative."""
    return constant(primal), given([])


@rule()
def relu(u: Series, inplace: bool = False) -> Pair:
    positive = u.primal > 0
    dtype = u.primal.dtype
    return pinned(u.primal.relu(), select(positive, u, 0.0, dtype)), select(positive, 1.0, 0.0, dtype)


@rule()
def leaky_relu(u: Series, negative_slope: float = 0.01, inplace: bool = False) -> Pair:
    slope = select(u.primal > 0, 1.0, float(negative_slope), u.primal.dtype)
    return u * slope, slope


@rule("abs", "absolute")
def absolute(u: Series) -> Pair:
    if u.primal.is_complex():
        raise TypeError(
            "Expected real numbers: the modulus of a complex jet is not analytic. Use `(x * x.conj()).real.sqrt()`."
        )
    sign = constant(u.primal.sign())
    return u * sign, sign


@rule("clamp", "clip")
def clamp(u: Series, min: float | None = None, max: float | None = None) -> Pair:
    x = u.primal
    kept = torch.ones_like(x, dtype=torch.bool)
    if min is not None:
        kept = kept & (x >= min)
    if max is not None:
        kept = kept & (x <= max)
    return inside(kept, pinned(x.clamp(min, max), u), 1.0)


@rule("clamp_min")
def clamp_min(u: Series, min: float) -> Pair:
    return clamp(u, min, None)


@rule("clamp_max")
def clamp_max(u: Series, max: float) -> Pair:
    return clamp(u, None, max)


@rule("hardtanh")
def hardtanh(u: Series, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Pair:
    x = u.primal
    return inside((x > min_val) & (x < max_val), pinned(F.hardtanh(x, min_val, max_val), u), 1.0)


@rule("relu6")
def relu6(u: Series, inplace: bool = False) -> Pair:
    return hardtanh(u, 0.0, 6.0)


@rule()
def hardsigmoid(u: Series, inplace: bool = False) -> Pair:
    x = u.primal
    return inside((x > -3.0) & (x < 3.0), pinned(F.hardsigmoid(x), u * (1.0 / 6.0)), 1.0 / 6.0)


@rule()
def hardswish(u: Series, inplace: bool = False) -> Pair:
    x, dtype = u.primal, u.primal.dtype
    gate = select((x > -3.0) & (x < 3.0), u * (1.0 / 6.0) + 0.5, select(x >= 3.0, 1.0, 0.0, dtype), dtype)
    slope = select((x > -3.0) & (x < 3.0), u * (1.0 / 3.0) + 0.5, select(x >= 3.0, 1.0, 0.0, dtype), dtype)
    return pinned(F.hardswish(x), u * gate), slope


@rule()
def softshrink(u: Series, lambd: float = 0.5) -> Pair:
    return inside(u.primal.abs() > lambd, pinned(F.softshrink(u.primal, lambd), u), 1.0)


@rule()
def hardshrink(u: Series, lambd: float = 0.5) -> Pair:
    return inside(u.primal.abs() > lambd, pinned(F.hardshrink(u.primal, lambd), u), 1.0)


@rule("threshold")
def threshold(u: Series, threshold: float, value: float, inplace: bool = False) -> Pair:
    return inside(u.primal > threshold, pinned(F.threshold(u.primal, threshold, value), u), 1.0)


def _exponential_below(u: Series, value: Tensor, alpha: float, scale: float, rate: float) -> Pair:
    r"""Return $s\,u$ above zero and $s \alpha (e^{r u} - 1)$ below."""
    dtype = u.primal.dtype
    bend = exp(u * rate, (u.primal.clamp(max=0.0) * rate).exp())  # bounded where it is not used
    y = select(u.primal > 0, u * scale, bend * (alpha * scale), dtype)
    return pinned(value, y), select(u.primal > 0, scale, bend * (alpha * scale * rate), dtype)


@rule()
def elu(u: Series, alpha: float = 1.0, inplace: bool = False) -> Pair:
    return _exponential_below(u, F.elu(u.primal, alpha), alpha, 1.0, 1.0)


@rule()
def celu(u: Series, alpha: float = 1.0, inplace: bool = False) -> Pair:
    return _exponential_below(u, F.celu(u.primal, alpha), alpha, 1.0, 1.0 / alpha)


@rule()
def selu(u: Series, inplace: bool = False) -> Pair:
    return _exponential_below(
        u, F.selu(u.primal), 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0
    )


@rule()
def frac(u: Series) -> Pair:
    return pinned(u.primal.frac(), u), constant(torch.ones_like(u.primal))


@rule()
def sign(u: Series) -> Pair:
    return _flat(u.primal.sign())


@rule()
def floor(u: Series) -> Pair:
    return _flat(u.primal.floor())


@rule()
def ceil(u: Series) -> Pair:
    return _flat(u.primal.ceil())


@rule()
def round_(u: Series, *, decimals: int = 0) -> Pair:
    return _flat(u.primal.round(decimals=decimals))


@rule("trunc", "fix")
def trunc(u: Series) -> Pair:
    return _flat(u.primal.trunc())


@rule()
def heaviside(u: Series, values: Tensor) -> Pair:
    return _flat(torch.heaviside(u.primal, values))
