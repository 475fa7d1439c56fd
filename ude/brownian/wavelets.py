r"""A Brownian path as a sum over wavelets, of which only one pair of each level is felt at a given time.

White noise has independent normal coefficients in every orthonormal basis. In that of Alpert's piecewise linear
multiwavelets, which are orthogonal to 1 and $t$, neither the path $W = \int dW$ nor its integral $I = \int W\, dt$
feels a wavelet outside of its cell. So $W(t)$ and $I(t)$ are sums of two terms for each level, with no recursion.

Reference:
    Alpert (1993), A class of bases in L2 for the sparse representation of integral operators, SIAM J. Math. Anal.
    24(1), 246-262.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

EVEN, ODD = math.sqrt(1.5), math.sqrt(0.5)


class Shapes(NamedTuple):
    """What the two functions of a basis add at a place, once and twice integrated.

    Args:
        w1: The first, integrated.
        w2: The second, integrated.
        i1: The first, integrated twice.
        i2: The second, integrated twice.
    """

    w1: Tensor
    w2: Tensor
    i1: Tensor
    i2: Tensor


def whole(u: Tensor) -> Shapes:
    r"""Return the integrals of $1$ and $\sqrt3\,(2u - 1)$, the basis of linear functions on [0, 1], from 0 to $u$."""
    root = math.sqrt(3.0)
    return Shapes(u, root * u * (u - 1.0), 0.5 * u * u, root * u * u * (u / 3.0 - 0.5))


def cell(z: Tensor) -> Shapes:
    r"""Return the integrals of the two wavelets on [-1, 1] from -1 to $z$; all vanish at both ends.

    The wavelets are $\sqrt{3/2}\,(2|z| - 1)$ and $\sqrt{1/2}\,\operatorname{sign}(z)\,(3|z| - 2)$.
    """
    a = z.abs()
    left = a - 1.0
    square = left * left
    return Shapes(
        EVEN * z * left,
        0.5 * ODD * (3.0 * a - 1.0) * left,
        EVEN / 6.0 * square * (2.0 * a + 1.0),
        0.5 * ODD * z * square,
    )
