"""The time of an event as a function of everything it depends on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ude import ad
from ude._typing import FlatField
from ude.solve.events.crossing import Crossing, FlatCondition


def time_shift(crossing: Crossing, conditions: Sequence[FlatCondition]) -> Tensor:
    r"""Return zeros that carry the gradient of the time of the event, $-dg / \dot g$.

    $g$ is the condition at the event with the time held, $\dot g$ its derivative along the solution. Zero gradient
    for samples without an event; not finite where the solution only touches the zero. Once differentiable.

    Args:
        crossing: The first event of every sample.
        conditions: Of the continuous events.
    """
    fired = crossing.fired
    slope = _slope(crossing, conditions)
    value = _chosen(crossing, conditions, crossing.section.time(crossing.theta), crossing.section.state(crossing.theta))
    if not value.requires_grad:
        return torch.zeros_like(crossing.theta)
    zero = torch.zeros_like(crossing.theta)
    inverse = torch.where(fired, -1.0 / torch.where(fired, slope, 1.0), 0.0)
    return ad.attach(zero, [value], lambda cotangent: [cotangent * inverse])


@torch.no_grad()
def departure(condition: FlatCondition, field: FlatField, t: Tensor, y: Tensor, direction: Tensor) -> Tensor:
    r"""Return half the sign of $\dot g = g_t + g_y f$ in the direction of time: where a condition at zero goes next."""
    with torch.enable_grad():
        at, state = t.detach().requires_grad_(), y.detach().requires_grad_()
        value = condition(at, state)
        if not value.requires_grad:
            return torch.zeros_like(t)
        by_time, by_state = ad.grad([value.sum()], [at, state])
    slope = by_time + (by_state * field(t.detach(), y.detach())).sum(-1).real
    return 0.5 * direction * torch.nan_to_num(slope.detach().sign(), nan=0.0)


def _chosen(crossing: Crossing, conditions: Sequence[FlatCondition], t: Tensor, y: Tensor) -> Tensor:
    """Return the condition that each sample has met."""
    values = torch.stack([condition(t, y) for condition in conditions])
    return values.gather(0, crossing.event.unsqueeze(0))[0]


def _slope(crossing: Crossing, conditions: Sequence[FlatCondition]) -> Tensor:
    """Return the derivative of the condition along the continuous extension, per unit of time."""
    section = crossing.section
    with torch.enable_grad():
        shift = torch.zeros_like(crossing.theta, requires_grad=True)
        dt = section.record.dt
        theta = crossing.theta + shift / torch.where(dt == 0, 1.0, dt)
        value = _chosen(crossing, conditions, section.time(crossing.theta) + shift, section.known_state(theta))
        if not value.requires_grad:
            return torch.zeros_like(crossing.theta)
        return ad.grad(value.sum(), [shift])[0].detach()
