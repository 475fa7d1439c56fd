"""Coordinates in which a positive state cannot become negative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ude._checks import InputError


@dataclass(frozen=True, slots=True)
class LogCoordinates:
    r"""Some states in their logarithm: $z_i = \log y_i$ for positive states, $z_i = y_i$ for the others.

    By the chain rule $\dot z_i = f_i(t, y) / y_i$ for the positive ones.

    Args:
        states: Names of all states.
        positive: Names of the states kept positive.

    Raises:
        ValueError: If a name in `positive` is not a state.

    Example:
        >>> LogCoordinates(("x", "y"), ("y",)).encode(torch.tensor([-1.0, 1.0]))
        tensor([-1., 0.])
    """

    states: tuple[str, ...]
    positive: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        strange = [name for name in self.positive if name not in self.states]
        if strange:
            raise ValueError(f"`positive` names {strange}, which are not among the states {self.states}.")

    def encode(self, y: Tensor) -> Tensor:
        """Return the coordinates `z` of states `y`, shape `(*batch, states)`.

        Raises:
            InputError: If a positive state is zero or negative.
        """
        for name, column in zip(self.states, y.unbind(-1), strict=True):
            if name in self.positive and bool((column <= 0).any()):
                raise InputError(
                    f"The state {name!r} is kept positive, but one of its values is {column.min().item():g}. Take it "
                    "out of `positive`, or give such values the smallest size that can be measured."
                )
        return self._columns(y, torch.log)

    def decode(self, z: Tensor) -> Tensor:
        """Return the states at coordinates `z`."""
        return self._columns(z, torch.exp)

    def velocity(self, y: Tensor, rate: Tensor) -> Tensor:
        r"""Return $\dot z$ where the states are `y` and their rates $\dot y$ are `rate`."""
        return self._columns(rate, torch.div, y)

    def _columns(self, x: Tensor, f: Callable[..., Tensor], *others: Tensor) -> Tensor:
        if not self.positive:
            return x
        if len(self.positive) == len(self.states):
            return f(x, *others)
        columns = zip(self.states, x.unbind(-1), *(other.unbind(-1) for other in others), strict=True)
        return torch.stack([f(*column) if name in self.positive else column[0] for name, *column in columns], dim=-1)


@dataclass(frozen=True, slots=True)
class LatentField:
    """The vector field of a model in its own coordinates, called `field(t, z)` or `field(t, z, signal)`."""

    model: Any
    coordinates: LogCoordinates

    def __call__(self, t: Any, z: Tensor, signal: Any = None) -> Tensor:
        """Return the time derivative of the coordinates `z`."""
        y = self.coordinates.decode(z)
        return self.coordinates.velocity(y, self.model(t, y, signal))
