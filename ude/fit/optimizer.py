"""What the training loop asks of an optimizer of many members at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

OptimizerState = dict[str, Tensor]
"""Everything an optimizer remembers, as named tensors: what a checkpoint stores.

Every state holds `theta` (where to evaluate next), `best` and `best_loss` (the best point of each member so far)
and `iteration` (evaluations so far).
"""


@runtime_checkable
class Optimizer(Protocol):
    """Minimises one loss per row of `theta`, by asking for one evaluation of all rows at a time.

    The rows (members) never exchange information: each follows the path that it would follow alone. A state is a
    value; `update` returns a new one, so that an interrupted evaluation leaves the last state intact.
    """

    @property
    def name(self) -> str:
        """Name of the phase in the history."""
        ...

    @property
    def iterations(self) -> int:
        """Largest number of evaluations."""
        ...

    def init(self, theta: Tensor) -> OptimizerState:
        """Return the state before the first evaluation; `theta` has shape `(members, parameters)`."""
        ...

    def update(self, state: Mapping[str, Tensor], loss: Tensor, grad: Tensor) -> OptimizerState:
        """Take in the loss `(members,)` and its gradient `(members, parameters)` at `state["theta"]`."""
        ...

    def is_finished(self, state: Mapping[str, Tensor]) -> bool:
        """Return True when every member has converged, or the iterations are used up."""
        ...


def track_best(state: Mapping[str, Tensor], loss: Tensor, is_finite: Tensor) -> tuple[Tensor, Tensor]:
    """Return `best` and `best_loss` after an evaluation at `state["theta"]`."""
    improved = is_finite & (loss < state["best_loss"])
    best = torch.where(improved[:, None], state["theta"], state["best"])
    return best, torch.where(improved, loss, state["best_loss"])


def is_usable(loss: Tensor, grad: Tensor) -> Tensor:
    """True for members whose loss and gradient are finite, shape `(members,)`."""
    return loss.isfinite() & grad.isfinite().all(dim=1)
