"""The zero of a function between two places, for many samples at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ude.solve.events.section import Rows

MOST_ITERATIONS = 100

RESOLUTION = 64
"""Units of rounding within which the sign of a sum of stages may be a matter of rounding."""


FEW = 8
"""Where at most one in so many samples still needs work, it is done on these only."""


class Function(Protocol):
    """A function of one number per sample."""

    def __call__(self, places: Tensor) -> Tensor:
        """Return values of shape `(rows,)` at places of this shape."""
        ...

    def among(self, chosen: Tensor) -> Function:
        """Return the function of some of the samples, given as a mask."""
        ...


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


def last_before_zero(value: Function, bracket: Bracket) -> Tensor:
    r"""Return the last number before the zero in a bracket: there the sign is still the one at `low`.

    First the zero of the parabola through the three points; then inverse quadratic interpolation where they allow it,
    else bisection, until the two sides of the zero are neighbours but for rounding. Where the signs at both ends are
    equal, or a value there is zero, `low` is returned.

    Args:
        value: The function.
        bracket: Around the zero.

    Reference:
        Chandrupatla (1997), A new hybrid quadratic/bisection algorithm for finding the zero of a nonlinear function
        without using derivatives, Adv. Eng. Softw. 28(3), 145-149.
    """
    return _closed(value, bracket, _parabola)


def _closed(value: Function, bracket: Bracket, guess: Callable[..., Tensor]) -> Tensor:
    """Do so, the first guess being a share of the way from a to b, as `_share` returns it."""
    # The newest point is a, the zero lies between a and b, and c is a third one beyond a.
    swapped = bracket.aside < bracket.low
    a, at_a = torch.where(swapped, bracket.low, bracket.high), torch.where(swapped, bracket.at_low, bracket.at_high)
    b, at_b = torch.where(swapped, bracket.high, bracket.low), torch.where(swapped, bracket.at_high, bracket.at_low)
    c, at_c = bracket.aside, bracket.at_aside
    left, before, sign_a = bracket.low, bracket.at_low.sign(), at_a.sign()
    settled = (before == 0) | (sign_a == at_b.sign())
    resolution = RESOLUTION * torch.finfo(left.dtype).eps
    share, creeps = guess(a, b, c, at_a, at_b, at_c), torch.zeros_like(settled)
    for _ in range(MOST_ITERATIONS):
        least = resolution * torch.maximum(a, b) / (b - a).abs()
        done = settled | (least > 0.5)
        left_over = len(done) - int(done.sum())
        if left_over == 0:
            break
        if left_over * FEW <= len(done):
            rest = _around(left, a, b, c, at_a, at_b, at_c)
            rows = Rows(~done)
            return rows.put(_closed(value.among(~done), Bracket(*map(rows.take, rest)), _share), left)
        # At least the resolution away from either side, so that the bracket closes around the zero.
        short = creeps | (share < least)
        share = torch.where(done, 0.0, share.clamp(least, 1.0 - least))
        middle = torch.lerp(a, b, share)
        at_middle = value(middle)
        sign = at_middle.sign()
        left = torch.where(sign * before >= 0, torch.maximum(left, middle), left)
        settled = settled | (sign == 0)
        same = sign == sign_a
        c, at_c = torch.where(same, a, b), torch.where(same, at_a, at_b)
        b, at_b = torch.where(same, b, a), torch.where(same, at_b, at_a)
        a, at_a, sign_a = middle, at_middle, sign
        # A shortest step that did not reach the other side of the zero is followed by one twice as long.
        creeps = same & short
        share = torch.where(creeps, 2 * share, _share(a, b, c, at_a, at_b, at_c))
    return left


def _around(low: Tensor, a: Tensor, b: Tensor, c: Tensor, at_a: Tensor, at_b: Tensor, at_c: Tensor) -> Bracket:
    """Return three points as a bracket, of which `low` is either a or b."""
    is_a = low == a
    return Bracket(low, torch.where(is_a, b, a), c, torch.where(is_a, at_a, at_b), torch.where(is_a, at_b, at_a), at_c)


def _parabola(a: Tensor, b: Tensor, c: Tensor, at_a: Tensor, at_b: Tensor, at_c: Tensor) -> Tensor:
    """Return the zero between a and b of the parabola through three points, as a share of the way from a to b."""
    place, rise = (c - a) / (b - a), at_b - at_a
    bend = ((at_c - at_a) / place - rise) / (place - 1.0)
    # bend s^2 + slope s + at_a, whose smaller zero is that of the two without cancellation.
    slope = rise - bend
    half = -0.5 * (slope + torch.copysign((slope.square() - 4.0 * bend * at_a).sqrt(), slope))
    small = at_a / half
    share = torch.where((small >= 0.0) & (small <= 1.0), small, half / bend)
    # A straight line has one zero; NaN compares as false.
    return torch.where((share >= 0.0) & (share <= 1.0), share, _share(a, b, c, at_a, at_b, at_c))


def _share(a: Tensor, b: Tensor, c: Tensor, at_a: Tensor, at_b: Tensor, at_c: Tensor) -> Tensor:
    """Return where to look next, as a share of the way from a to b."""
    ab, cb, at_ab, at_cb = a - b, c - b, at_a - at_b, at_c - at_b
    place, height = ab / cb, at_ab / at_cb
    # The inverse function through the three points is monotone between them: it says where zero is.
    bends_little = (height.square() < place) & ((1 - height).square() < 1 - place)
    quadratic = at_a / at_ab * (at_c / at_cb) - (c - a) / ab * (at_a / (at_c - at_a)) * (at_b / at_cb)
    return torch.where(bends_little, quadratic, 0.5)
