"""Collocation: match the slopes of smoothed data, without solving anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ude.fit.adam import Adam
from ude.fit.lbfgs import LBFGS
from ude.fit.optimizer import Optimizer
from ude.fit.simulation import Stepping
from ude.fit.task import Task
from ude.fit.training import Phase
from ude.fit.variables import Variables
from ude.problems import Trajectories


@dataclass(frozen=True, slots=True, kw_only=True)
class Collocation:
    r"""Make the right-hand side agree with the derivatives of smoothed data.

    $$ L = \overline{\left(f_i(t, s(t)) - \dot s_i(t)\right)^2 / r_i^2} + l_2\, \overline{\theta^2}, $$

    with the smoothing spline $s$ through the data and the scale $r_i$ of its slope. One evaluation of the right-hand
    side at all points at once, a small fraction of the cost of a solve, and no solve that could diverge: the
    warm start of choice where every state was measured often enough. Its result carries the error of the smoothing,
    so let a shooting strategy follow.

    Args:
        optimizers: Run one after the other.

    Raises:
        ValueError: In the fit, if a state was never measured: its slope is unknown.
    """

    optimizers: tuple[Optimizer, ...] = field(default=(Adam(iterations=300), LBFGS(iterations=100)))

    def phases(self, task: Task, stepping: Stepping) -> list[Phase]:
        """Return one phase per optimizer."""
        losses = _losses(task)
        variables = Variables({k: v for k, v in task.leaves().items() if k != "y0"}, task.members)
        if not variables.leaves:
            return []
        return [
            Phase(strategy="collocation", losses=losses, optimizer=optimizer, variables=variables)
            for optimizer in self.optimizers
        ]


def is_measured_often(data: Trajectories, least: int = 8) -> bool:
    """Return True if every state was measured at `least` times or more in every trajectory."""
    return bool(((~data.ys.isnan()).sum(dim=1) >= least).all())


def _losses(task: Task) -> Callable[[], Tensor]:
    """Return the function that computes the losses; what does not change is computed once."""
    if any(bool(curve.ys.isnan().any()) for curve in task.curves):
        raise ValueError(
            "Collocation needs every state measured at least twice in every trajectory. Use `MultipleShooting` or "
            "`SingleShooting` where a state was never observed."
        )
    states = len(task.model.states)
    y, slope, inside = (
        torch.stack([getattr(c, name) for c in task.curves]).reshape(len(task.curves), -1, states)
        for name in ("ys", "derivatives", "is_inside")
    )
    y = _within_domain(task, y).expand(task.members, -1, -1)
    t = task.curves[0].ts.reshape(-1)
    weight = inside / (task.scales.rate.square() * inside.sum(dim=(1, 2), keepdim=True))
    is_single = task.model.replicates is None
    u = None if task.signal is None else task.signal(task.curves[0].ts.T).transpose(0, 1).flatten(0, 1)

    def losses() -> Tensor:
        rate = task.model(t, y[0], u)[None] if is_single else task.model(t, y, u)
        return (weight * (rate - slope).square()).sum(dim=(1, 2)) + task.penalty()

    return losses


def _within_domain(task: Task, y: Tensor) -> Tensor:
    """Lift positive states off zero, where a smoothing spline undershoots."""
    positive = torch.tensor([name in task.model.coordinates.positive for name in task.model.states])
    return torch.where(positive, torch.maximum(y, 1e-3 * task.scales.state), y)
