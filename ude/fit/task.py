"""Everything one fit works on: the model, the data as tensors, the scales, the initial states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ude.fit.initial_states import Start
from ude.fit.options import SolverOptions
from ude.fit.scaling import Scales
from ude.fit.smoothing import SmoothCurves
from ude.models import UDE, Signal
from ude.problems import Trajectories


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is fitted, to what, in which units.

    Args:
        model: K replicates as one model, or a single model.
        field: Its vector field in its own coordinates, always the same object, so that it is compiled once.
        members: K.
        data: One data set, or one per replicate; all have the same times.
        curves: The smoothed data sets.
        weights: Weight of each squared residual, shape `(data sets, groups, times, states)`, zero where
            nothing was measured.
        scales: Typical sizes.
        signal: Exogenous inputs of every trajectory.
        start: Initial states.
        offset: Learned change of the initial states in units of their scale, in the model's coordinates; shape
            `(members, groups, states)`, a leaf tensor.
        solver: How the equations are integrated.
        l2: Weight of the mean squared network parameter in the loss.
    """

    model: UDE
    field: Callable[..., Tensor]
    members: int
    data: tuple[Trajectories, ...]
    curves: tuple[SmoothCurves, ...]
    weights: Tensor
    scales: Scales
    signal: Signal | None
    start: Start
    offset: Tensor
    solver: SolverOptions
    l2: float

    @property
    def ts(self) -> Tensor:
        """Times, shape `(groups, times)`."""
        return self.data[0].ts

    def ys(self) -> Tensor:
        """Measurements, zero where missing, shape `(data sets, groups, times, states)`."""
        return torch.stack([d.ys for d in self.data]).nan_to_num(nan=0.0)

    def latent_scale(self) -> Tensor:
        """Typical size of a change of each state in the model's coordinates, shape `(states,)`."""
        # In log coordinates a unit is a factor e.
        positive = torch.tensor([name in self.model.coordinates.positive for name in self.model.states])
        return torch.where(positive, 1.0, self.scales.state)

    def latent_start(self) -> Tensor:
        """Initial states in the model's coordinates, on the graph of `offset`, shape `(members, groups, states)`."""
        z = self.model.coordinates.encode(self.start.values)
        return z + torch.where(self.start.is_learned, self.offset * self.latent_scale(), 0.0)

    def penalty(self) -> Tensor:
        """Return `l2` times the mean squared network parameter of every member, shape `(members,)`."""
        parameters = [p.reshape(self.members, -1) for p in self.model.terms.parameters() if p.requires_grad]
        if not self.l2 or not parameters:
            return self.weights.new_zeros(self.members)
        return self.l2 * torch.cat(parameters, dim=1).square().mean(dim=1)

    def leaves(self) -> dict[str, Tensor]:
        """Return the tensors that a fit changes: the model's parameters, and the initial states if learned."""
        leaves = {name: cast("Tensor", p) for name, p in self.model.named_parameters() if p.requires_grad and p.numel()}
        return leaves | ({"y0": self.offset} if bool(self.start.is_learned.any()) else {})
