"""Single shooting: one solve over each whole trajectory."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ude.fit.adam import Adam
from ude.fit.lbfgs import LBFGS
from ude.fit.optimizer import Optimizer
from ude.fit.simulation import Stepping, simulate, whole_trajectories
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

    optimizers: tuple[Optimizer, ...] = field(default=(Adam(), LBFGS()))

    def phases(self, task: Task, stepping: Stepping) -> list[Phase]:
        """Return one phase per optimizer."""
        variables = Variables(task.leaves(), task.members)

        def losses() -> Tensor:
            return trajectory_losses(task, stepping) + task.penalty()

        return [
            Phase(strategy="single shooting", losses=losses, optimizer=optimizer, variables=variables)
            for optimizer in self.optimizers
        ]


def trajectory_losses(task: Task, stepping: Stepping) -> Tensor:
    """Return the weighted mean squared residual of every member, shape `(members,)`."""
    ys = simulate(task, whole_trajectories(task), task.latent_start(), stepping)
    return (task.weights * (ys - task.ys()).square()).sum(dim=(1, 2, 3))
