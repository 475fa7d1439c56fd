"""The time of an event as a function of everything it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ude import ad
from ude.solve.events.crossing import Crossing
from ude.solve.events.section import FlatCondition


def time_shift(crossing: Crossing, conditions: Sequence[FlatCondition], time: Tensor, state: Tensor) -> Tensor | None:
    r"""Return zeros that carry the gradient of the time of the event, $-dg / \dot g$, shape `(rows,)`.

    $g$ is the condition at the event with the time held, $\dot g$ its derivative along the solution. Not finite where
    the solution only touches the zero; None where nothing has a gradient. Once differentiable.

    Args:
        crossing: The first event of every sample that has one.
        conditions: Of the continuous events.
        time: Times of the events.
        state: States there, on the autograd graph.
    """
    chosen = partial(crossing.part.chosen_value, conditions, crossing.event)
    value = chosen(time, state)
    if not value.requires_grad:
        return None
    by_time, by_state = _gradient(chosen, time, state)
    inverse = -1.0 / (by_time + crossing.part.slope(crossing.theta, by_state))
    return ad.attach(torch.zeros_like(crossing.theta), [value], lambda cotangent: [cotangent * inverse])


def departure(condition: FlatCondition, t: Tensor, y: Tensor, rate: Tensor, direction: Tensor) -> Tensor:
    r"""Return half the sign that a condition at zero leaves it for: that of $\dot g = g_t + g_y \dot y$, as time goes.

    Args:
        condition: $g$.
        t: Times, shape `(rows,)`.
        y: States, shape `(rows, state)`.
        rate: $\dot y$ there.
        direction: 1 or -1 per sample.
    """
    by_time, by_state = _gradient(condition, t, y)
    slope = by_time + (by_state.conj() * rate).real.sum(-1)
    return 0.5 * direction * torch.nan_to_num(slope.sign(), nan=0.0)


def _gradient(condition: FlatCondition, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives of a condition by time and state."""
    at, state = t.detach().requires_grad_(), y.detach().requires_grad_()
    with torch.enable_grad():
        total = condition(at, state).sum()
        if not total.requires_grad:
            return torch.zeros_like(at), torch.zeros_like(state)
        by_time, by_state = ad.grad(total, [at, state])
    return by_time, by_state
