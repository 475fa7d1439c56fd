"""Taylor coefficients of a function of a number from its values alone, as a reference without differentiation."""

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from numpy.polynomial import chebyshev

ORDER = 6

# Around a function whose next pole or kink is at distance d from 0, a radius of about d / 4 is best: the truncation of
# order (r / d)^degree and the rounding of order 1e-16 degree^6 / (720 r^6) meet below 1e-5. Close to a kink the low
# degree, close to a pole the high one is better.
RADII = (0.55, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.035)
DEGREES = (9, 16)
NODES = 21


def taylor(curve: Callable[[float], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return the Taylor coefficients at 0, the size of each, and the error relative to that size.

    The least-squares polynomials on two neighbouring intervals [-r, r] are compared. Their rounding is independent,
    their truncations are as the radii to the power of `degree - 5`, and a kink lies at different places of the two
    intervals, or in one of them only. So the difference is an estimate of the error of the worse one; of all pairs that
    with the smallest is taken. The coefficients have shape `(ORDER + 1, *shape)`.
    """
    values = [_values(curve, radius) for radius in RADII]
    best = None, None, math.inf
    for degree in DEGREES:
        series = [None if f is None else _fit(f, r, degree) for f, r in zip(values, RADII, strict=True)]
        for wide, narrow in pairwise(series):
            if wide is None or narrow is None or wide.shape != narrow.shape:
                continue
            size = sizes(narrow)
            error = float((_largest(wide - narrow) / size).max())
            if error < best[2]:  # not so if it is no number
                best = narrow, size, error
    return best


def sizes(series: torch.Tensor) -> torch.Tensor:
    """Return the largest number of each coefficient, but at least a hundredth of that of all, which may be zero."""
    size = _largest(series)
    size = torch.maximum(size, 0.01 * size.max())
    return torch.where(size == 0, torch.ones_like(size), size)


def _largest(series: torch.Tensor) -> torch.Tensor:
    return series.reshape(len(series), -1).abs().amax(1)


def _values(curve: Callable[[float], torch.Tensor], radius: float) -> torch.Tensor | None:
    try:
        return torch.stack([curve(t) for t in radius * _nodes()])
    except RuntimeError:  # outside of the domain
        return None


def _fit(values: torch.Tensor, radius: float, degree: int) -> torch.Tensor:
    scales = radius ** -torch.arange(ORDER + 1, dtype=torch.float64)
    return torch.tensordot((scales[:, None] * _weights(degree)).to(values.dtype), values, 1)


@cache
def _nodes() -> torch.Tensor:
    return torch.cos(math.pi * (torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES)


@cache
def _weights(degree: int) -> torch.Tensor:
    """Weights of the values at the nodes in each monomial's coefficient, by the discrete orthogonality of T_j."""
    projection = chebyshev.chebvander(_nodes().numpy(), degree).T * 2.0 / NODES
    projection[0] /= 2.0
    monomials = np.zeros((ORDER + 1, degree + 1))
    for j in range(degree + 1):
        coefficients = chebyshev.cheb2poly(np.eye(degree + 1)[j])[: ORDER + 1]
        monomials[: len(coefficients), j] = coefficients
    return torch.from_numpy(monomials @ projection)
