"""What a method for stochastic differential equations sees of the problem."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ude.brownian import Increment
from ude.problems import Interpretation, Noise

__all__ = ["Interpretation", "Noise", "StochasticField", "spread"]


@runtime_checkable
class StochasticField(Protocol):
    r"""Drift, diffusion and path of $dy = f(t, y)\, dt + g(t, y)\, dW$, on `(batch, state)`."""

    @property
    def is_diagonal(self) -> bool:
        """Every component of the state has a noise of its own: diffusions have the shape of the state."""
        ...

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the drift, shape `(batch, state)`."""
        ...

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the diffusion, shape `(batch, state)` if it is diagonal, else `(batch, state, noise)`."""
        ...

    def wiener(self, t: Tensor, dt: Tensor) -> Tensor:
        """Return the increment of the path in a step, shape `(batch, noise)`."""
        ...

    def increment(self, t: Tensor, dt: Tensor) -> Increment:
        """Return increment and space-time Levy area of the path in a step, each of shape `(batch, noise)`."""
        ...


def spread(field: StochasticField, diffusion: Tensor, noise: Tensor) -> Tensor:
    r"""Return $g\, \xi$, shape `(batch, state)`, for numbers $\xi$ of shape `(batch, noise)`, such as an increment."""
    return diffusion * noise if field.is_diagonal else torch.einsum("bsn,bn->bs", diffusion, noise)
