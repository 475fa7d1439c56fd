"""Single shooting: one solve over each whole trajectory."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ude.fit.adam import Adam
from ude.fit.lbfgs import LBFGS
from ude.fit.optimizer import Optimizer
from ude.fit.simulation import Simulator, Stepping, whole_trajectories
from ude.fit.task import Task
from ude.fit.training import Phase
from ude.fit.variables import Variables


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleShooting:
    r"""Solve each trajectory from its start and compare with the data.

    $$ L = \frac{1}{n} \sum_{j,i} w_{ji} \left(\hat y_i(t_j) - y_{ji}\right)^2 + l_2\, \overline{\theta^2} $$

    over the n measured values, with $w = 1 / \text{scale}^2$ unless other weights are given. What counts in the end,
    but from a random start a long or oscillating trajectory may end in a poor local minimum: warm it up
    with `Collocation` or `MultipleShooting`.

    Args:
        optimizers: Run one after the other.
    """

    optimizers: tuple[Optimizer, ...] = field(default=(Adam(iterations=500), LBFGS()))

    def phases(self, task: Task, stepping: Stepping) -> list[Phase]:
        """Return one phase per optimizer."""
        variables = Variables(task.leaves(), task.members)

        simulate = Simulator(task, whole_trajectories(task), stepping)

        def losses() -> Tensor:
            ys = simulate(task.latent_start().expand(task.members, -1, -1))
            return mean_square(task, ys - task.ys()) + task.penalty()

        return [
            Phase(strategy="single shooting", losses=losses, optimizer=optimizer, variables=variables)
            for optimizer in self.optimizers
        ]


def is_resolved(task: Task, stepping: Stepping) -> bool:
    """Return True if steps of half the length give the same trajectories, compared with the residuals.

    The difference must be at most a tenth of the residuals, or 1e-5 of the states' scales (root mean squares), for
    the best member and for half of all. Adaptive steps count as resolved.
    """
    if stepping.dt is None:
        return True
    with torch.no_grad():
        coarse, fine = trajectories(task, stepping), trajectories(task, stepping.halved())
        loss = mean_square(task, coarse - task.ys()).nan_to_num(nan=torch.inf)
        small = ((coarse - fine) / task.scales.state).square().mean(dim=(1, 2, 3)) <= 1e-10
        is_close = small | (mean_square(task, coarse - fine) <= 0.01 * loss)
    return bool(is_close[loss.argmin()]) and 2 * int(is_close.sum()) >= task.members


def trajectories(task: Task, stepping: Stepping) -> Tensor:
    """Return the states of all members at the times of the data, shape `(members, groups, times, states)`."""
    start = task.latent_start().expand(task.members, -1, -1)
    return Simulator(task, whole_trajectories(task), stepping)(start)


def mean_square(task: Task, difference: Tensor) -> Tensor:
    """Return the weighted mean square of residuals `(members, groups, times, states)`, shape `(members,)`."""
    return (task.weights * difference.square()).sum(dim=(1, 2, 3))
