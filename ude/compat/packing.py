"""A tuple of tensors as one vector, which is how torchdiffeq measures and steps it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Packing:
    """Between the tuple of tensors a user sees and the one vector a solver sees.

    Args:
        shapes: Shape of every tensor.

    Example:
        >>> packing = Packing((torch.Size([2]), torch.Size([])))
        >>> packing.unpack(packing.pack([torch.ones(2), torch.tensor(3.0)]))
        (tensor([1., 1.]), tensor(3.))
    """

    shapes: tuple[torch.Size, ...]

    def pack(self, parts: Sequence[Tensor], lead: int = 0) -> Tensor:
        """Return tensors of shape `(*lead, *shape)` one after the other, in the widest of their dtypes."""
        return torch.cat([part.reshape((*part.shape[:lead], part.shape[lead:].numel())) for part in parts], dim=-1)

    def unpack(self, packed: Tensor) -> tuple[Tensor, ...]:
        """Return `packed`, of shape `(*lead, state)`, as tensors of shape `(*lead, *shape)`."""
        parts = packed.split([shape.numel() for shape in self.shapes], dim=-1)
        return tuple(part.reshape((*packed.shape[:-1], *shape)) for part, shape in zip(parts, self.shapes, strict=True))


@dataclass(frozen=True, slots=True)
class PackedNorm:
    """A norm of tuples as one of packed states; two of them are equal if their norms and shapes are.

    Args:
        norm: Called with a tuple of tensors.
        packing: Takes a packed state apart.
    """

    norm: Callable[[tuple[Tensor, ...]], Tensor | float]
    packing: Packing

    def __call__(self, packed: Tensor) -> Tensor | float:
        """Return the norm of a packed state."""
        return self.norm(self.packing.unpack(packed))
