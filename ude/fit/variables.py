"""The unknowns of a fit as one matrix with a row per replicate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Variables:
    """Named leaf tensors of K replicates, read and written as rows of one matrix `theta`.

    Args:
        leaves: Tensors that require gradients; each has K rows' worth of numbers in K-major order (a
            leading axis K, or no such axis where K is 1).
        members: K.
    """

    def __init__(self, leaves: Mapping[str, Tensor], members: int) -> None:
        self.leaves, self.members = dict(leaves), members
        self._sizes = [leaf.numel() // members for leaf in self.leaves.values()]

    def read(self) -> Tensor:
        """Return the current values, shape `(members, parameters)`."""
        return torch.cat([leaf.detach().reshape(self.members, -1) for leaf in self.leaves.values()], dim=1)

    @torch.no_grad()
    def write(self, theta: Tensor) -> None:
        """Set the current values."""
        for leaf, part in zip(self.leaves.values(), theta.split(self._sizes, dim=1), strict=True):
            leaf.copy_(part.reshape(leaf.shape))

    def clear_gradient(self) -> None:
        """Forget the gradients of an earlier evaluation."""
        for leaf in self.leaves.values():
            leaf.grad = None

    def gradient(self) -> Tensor:
        """Return the gradients, shape `(members, parameters)`; zero for leaves that played no part."""
        rows = [
            (torch.zeros_like(leaf) if leaf.grad is None else leaf.grad).reshape(self.members, -1)
            for leaf in self.leaves.values()
        ]
        return torch.cat(rows, dim=1)
