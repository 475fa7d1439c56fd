"""Strong Wolfe line search of many members at once, one evaluation at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SUFFICIENT_DECREASE = 1e-4
CURVATURE = 0.9
EXPANSION = 4.0
MAX_EVALUATIONS = 20


class Bracket(NamedTuple):
    """Where each member's search stands; all tensors of shape `(members,)`.

    `low` is the best step so far that decreases enough (0 at first); a step that satisfies both conditions lies
    between `low` and `high`, which is infinite until a step proves too long.
    """

    low: Tensor
    low_loss: Tensor
    low_slope: Tensor
    high: Tensor
    high_loss: Tensor
    high_slope: Tensor
    evaluations: Tensor


class Verdict(NamedTuple):
    """What one evaluation decided, per member.

    Args:
        accept_trial: The step just evaluated satisfies the strong Wolfe conditions.
        accept_low: The evaluations are used up, `low` is a decrease and is taken.
        failed: No decrease was found.
        bracket: The bracket for the next evaluation.
        next_step: Where to evaluate next, where the search goes on.
        is_new_low: The step just evaluated has become `low`.
    """

    accept_trial: Tensor
    accept_low: Tensor
    failed: Tensor
    bracket: Bracket
    next_step: Tensor
    is_new_low: Tensor


def new_bracket(loss: Tensor, slope: Tensor) -> Bracket:
    """Return the bracket of a search that starts with this loss and this slope along the direction."""
    zero, infinite = torch.zeros_like(loss), torch.full_like(loss, torch.inf)
    return Bracket(zero, loss, slope, infinite, infinite, zero, torch.zeros_like(loss, dtype=torch.int64))


def judge(bracket: Bracket, step: Tensor, loss: Tensor, slope: Tensor, loss0: Tensor, slope0: Tensor) -> Verdict:
    r"""Decide, for each member, what the evaluation at `step` means.

    Accepts steps with $\phi(\alpha) \le \phi(0) + c_1 \alpha \phi'(0)$ and $|\phi'(\alpha)| \le c_2 |\phi'(0)|$. A loss
    that is not finite counts as too long a step.

    Args:
        bracket: Where the searches stand.
        step: Steps that were evaluated, $\alpha$.
        loss: $\phi(\alpha)$.
        slope: $\phi'(\alpha)$.
        loss0: $\phi(0)$.
        slope0: $\phi'(0) < 0$.

    Reference:
        Nocedal and Wright (2006), Numerical Optimization, algorithms 3.5 and 3.6, here as one bracket.
    """
    b = bracket
    is_finite = loss.isfinite() & slope.isfinite()
    too_long = ~is_finite | (loss > loss0 + SUFFICIENT_DECREASE * step * slope0) | (loss >= b.low_loss)
    accept = ~too_long & (slope.abs() <= -CURVATURE * slope0)
    # A new `low` whose slope points away from `high` leaves the old `low` as the far end.
    turn = ~too_long & (slope * (b.high - b.low) >= 0)
    evaluations = b.evaluations + 1
    narrowed = Bracket(
        torch.where(too_long, b.low, step),
        torch.where(too_long, b.low_loss, loss),
        torch.where(too_long, b.low_slope, slope),
        torch.where(too_long, step, torch.where(turn, b.low, b.high)),
        torch.where(too_long, torch.where(is_finite, loss, torch.inf), torch.where(turn, b.low_loss, b.high_loss)),
        torch.where(too_long, torch.where(is_finite, slope, 0.0), torch.where(turn, b.low_slope, b.high_slope)),
        evaluations,
    )
    width = (narrowed.high - narrowed.low).abs()
    exhausted = ~accept & ((evaluations >= MAX_EVALUATIONS) | (width <= 1e-14 * narrowed.high.abs()))
    accept_low = exhausted & (narrowed.low > 0)
    return Verdict(accept, accept_low, exhausted & ~accept_low, narrowed, _next_step(narrowed), ~too_long)


def _next_step(b: Bracket) -> Tensor:
    """Expand while `high` is infinite, else interpolate by a cubic, kept off the ends of the bracket."""
    width = b.high - b.low
    d1 = b.low_slope + b.high_slope - 3 * (b.high_loss - b.low_loss) / width
    discriminant = d1**2 - b.low_slope * b.high_slope
    d2 = width.sign() * discriminant.clamp_min(0).sqrt()
    fraction = 1 - (b.high_slope + d2 - d1) / (b.high_slope - b.low_slope + 2 * d2)
    usable = fraction.isfinite() & (discriminant >= 0)
    # Where the far end diverged, nothing is known about the shape: come back most of the way.
    fraction = torch.where(usable, fraction.clamp(0.1, 0.9), torch.where(b.high_loss.isfinite(), 0.5, 0.2))
    return torch.where(b.high.isfinite(), b.low + fraction * width, EXPANSION * b.low)
