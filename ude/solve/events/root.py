"""The zero of a function between two places, for many samples at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

MOST_ITERATIONS = 100

RESOLUTION = 64
"""Units of rounding within which the sign of a sum of stages may be a matter of rounding."""


class Bracket(NamedTuple):
    """Where a function changes sign; all of shape `(rows,)`.

    Args:
        low: Place before the zero, not negative.
        high: Place after it.
        aside: A third place near by, for a better first guess.
        at_low: Value at `low`.
        at_high: Value at `high`.
        at_aside: Value at `aside`.
    """

    low: Tensor
    high: Tensor
    aside: Tensor
    at_low: Tensor
    at_high: Tensor
    at_aside: Tensor


def last_before_zero(value: Callable[[Tensor], Tensor], bracket: Bracket) -> Tensor:
    r"""Return the last number before the zero in a bracket: there the sign is still the one at `low`.

    Inverse quadratic interpolation where three points allow it, else bisection, until the two sides of the zero are
    neighbours but for rounding. Where the signs at both ends are equal, or a value there is zero, `low` is returned.

    Args:
        value: The function, from places of shape `(rows,)` to values of the same shape.
        bracket: Around the zero.

    Reference:
        Chandrupatla (1997), A new hybrid quadratic/bisection algorithm for finding the zero of a nonlinear function
        without using derivatives, Adv. Eng. Softw. 28(3), 145-149.
    """
    # The newest point is a, the zero lies between a and b, and c is the point before.
    b, a, c, at_b, at_a, at_c = bracket
    left, before = b, at_b.sign()
    nothing = before == at_a.sign()
    resolution = RESOLUTION * torch.finfo(a.dtype).eps
    share = _share(a, b, c, at_a, at_b, at_c)
    for _ in range(MOST_ITERATIONS):
        least = resolution * torch.maximum(a, b) / (b - a).abs()
        done = nothing | (least > 0.5) | (at_a == 0) | (at_b == 0)
        if bool(done.all()):
            break
        # At least the resolution away from either side, so that the bracket closes around the zero.
        share = torch.where(done, 0.0, torch.minimum(torch.maximum(share, least), 1.0 - least))
        middle = a + share * (b - a)
        at_middle = value(middle)
        sign = at_middle.sign()
        not_yet = (sign == before) | (sign == 0)
        left = torch.where(not_yet & (middle > left), middle, left)
        same = sign == at_a.sign()
        c, at_c = torch.where(same, a, b), torch.where(same, at_a, at_b)
        b, at_b = torch.where(same, b, a), torch.where(same, at_b, at_a)
        a, at_a = middle, at_middle
        share = _share(a, b, c, at_a, at_b, at_c)
    return left


def _share(a: Tensor, b: Tensor, c: Tensor, at_a: Tensor, at_b: Tensor, at_c: Tensor) -> Tensor:
    """Return where to look next, as a share of the way from a to b."""
    place, height = (a - b) / (c - b), (at_a - at_b) / (at_c - at_b)
    # The inverse function through the three points is monotone between them: it says where zero is.
    bends_little = (height.square() < place) & ((1 - height).square() < 1 - place)
    first = at_a / (at_b - at_a) * at_c / (at_b - at_c)
    quadratic = first + (c - a) / (b - a) * at_a / (at_c - at_a) * at_b / (at_c - at_b)
    return torch.where(bends_little, quadratic, 0.5)
