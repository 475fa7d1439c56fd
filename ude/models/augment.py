"""More dimensions for a state to move in."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Augment(nn.Module):
    r"""Append dimensions to the last axis: zeros, $x \mapsto (x, 0)$, or what a network makes of it, $(x, N(x))$.

    Trajectories in the space of the data cannot cross, so that a neural ODE there cannot, for example, swap the inside
    and the outside of a sphere; with further dimensions it can. With `SecondOrder` the appended numbers are the initial
    velocities.

    Args:
        added: Number of zeros, or a module from `(*batch, d)` to `(*batch, added)`.

    Raises:
        ValueError: If the number is less than 1.

    Example:
        >>> Augment(2)(torch.ones(1, 3))
        tensor([[1., 1., 1., 0., 0.]])

    Reference:
        Dupont, Doucet & Teh (2019), Augmented neural ODEs, arXiv:1904.01681.
    """

    def __init__(self, added: int | nn.Module) -> None:
        super().__init__()
        if isinstance(added, int) and added < 1:
            raise ValueError(f"`added` must be at least 1 dimension, or a module, got {added}.")
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, shape `(*batch, d)`, with the further dimensions."""
        new = x.new_zeros(*x.shape[:-1], self.added) if isinstance(self.added, int) else self.added(x)
        return torch.cat([x, new], dim=-1)

    def extra_repr(self) -> str:
        """Name the number of zeros."""
        return str(self.added) if isinstance(self.added, int) else ""
