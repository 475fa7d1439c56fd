"""What a method for stochastic differential equations sees of the problem."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from ude.brownian import Increment

Noise: TypeAlias = Literal["diagonal", "additive", "scalar", "commutative", "general"]
"""How the diffusion depends on the state and on the components of the noise."""
Interpretation: TypeAlias = Literal["ito", "stratonovich"]


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

    def increment(self, t: Tensor, dt: Tensor) -> Increment:
        """Return what the path does in a step, each part of shape `(batch, noise)`."""
        ...


def spread(field: StochasticField, diffusion: Tensor, noise: Tensor) -> Tensor:
    r"""Return $g\, \xi$, shape `(batch, state)`, for numbers $\xi$ of shape `(batch, noise)`, such as an increment."""
    return diffusion * noise if field.is_diagonal else torch.einsum("bsn,bn->bs", diffusion, noise)
