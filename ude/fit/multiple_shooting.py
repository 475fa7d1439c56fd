"""Multiple shooting: many short solves that have to join up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ude._checks import positive
from ude.fit.adam import Adam
from ude.fit.lbfgs import LBFGS
from ude.fit.optimizer import Optimizer
from ude.fit.simulation import Intervals, Simulator, Stepping
from ude.fit.task import Task
from ude.fit.training import Phase
from ude.fit.variables import Variables


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipleShooting:
    r"""Solve short segments of each trajectory side by side, and penalise the gaps between them.

    $$ L = \frac{1}{n} \sum_{j,i} w_{ji} \left(\hat y_i(t_j) - y_{ji}\right)^2
         + c\, \overline{\left(\hat z_i(t_s^-) - z_i(t_s^+)\right)^2 / \text{scale}_i^2} + l_2\, \overline{\theta^2}. $$

    Short segments cannot run away, so that the loss has far fewer poor minima than that of a long solve, and all
    segments of all trajectories and replicates are one batch. Gaps are measured in the model's coordinates (the
    logarithm of positive states).

    Args:
        points: Times per segment, both ends included; neighbours share one.
        continuity: Weight of the gaps, $c$.
        starts: "learn" the states at which segments begin, from the smoothed data; or keep them at the "data",
            smoothed where nothing was measured.
        optimizers: Run one after the other.
    """

    points: int = 5
    continuity: float = 1.0
    starts: Literal["learn", "data"] = "learn"
    optimizers: tuple[Optimizer, ...] = field(default=(Adam(iterations=600, lr=0.03), LBFGS(iterations=400)))

    def __post_init__(self) -> None:
        if self.points < 2:
            raise ValueError(f"`points` must be at least 2, the two ends of a segment, got {self.points}.")
        positive("continuity", self.continuity)

    def phases(self, task: Task, stepping: Stepping) -> list[Phase]:
        """Return one phase per optimizer."""
        segments = Segments.of(task, self.points)
        shift = torch.zeros(task.members, *segments.interior.shape, len(task.model.states), dtype=task.ts.dtype)
        shift.requires_grad_(self.starts == "learn")
        leaves = task.leaves() | ({"starts": shift} if shift.requires_grad and shift.numel() else {})
        variables = Variables(leaves, task.members)
        losses = _losses(task, segments, shift, self.continuity, stepping)
        return [
            Phase(strategy="multiple shooting", losses=losses, optimizer=optimizer, variables=variables)
            for optimizer in self.optimizers
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """The segments of all trajectories, in order.

    Args:
        group: Trajectory of each segment, shape `(segments,)`.
        index: Times of each segment, as indices into its trajectory's times, shape `(segments, points)`; the
            last segment of a trajectory repeats its last index.
        is_counted: False where a measurement is already counted by the segment before, or repeated.
        interior: Segments that do not begin a trajectory: those whose start is free.
    """

    group: Tensor
    index: Tensor
    is_counted: Tensor
    interior: Tensor

    @classmethod
    def of(cls, task: Task, points: int) -> Segments:
        """Cut all trajectories into segments."""
        group: list[int] = []
        first: list[int] = []
        last: list[int] = []
        for g, ts in enumerate(task.ts):
            end = int((ts < ts[-1]).sum())  # padding repeats the last time
            begins = range(0, max(end, 1), points - 1)
            group += [g] * len(begins)
            first += list(begins)
            last += [min(begin + points - 1, end) for begin in begins]
        begin, end = torch.tensor(first)[:, None], torch.tensor(last)[:, None]
        index = torch.minimum(begin + torch.arange(points), end)
        is_new = begin + torch.arange(points) <= end
        is_counted = is_new & ((torch.arange(points) > 0) | (begin == 0))
        interior = (begin[:, 0] > 0).nonzero()[:, 0]
        return cls(group=torch.tensor(group), index=index, is_counted=is_counted, interior=interior)

    def take(self, values: Tensor) -> Tensor:
        """Gather `(..., groups, times, *rest)` into `(..., segments, points, *rest)`."""
        lead = values.ndim - 3
        return values[(slice(None),) * lead + (self.group[:, None], self.index)]


def _losses(
    task: Task, segments: Segments, shift: Tensor, continuity: float, stepping: Stepping
) -> Callable[[], Tensor]:
    """Return the function that computes the losses; what does not change is computed once."""
    signal = None if task.signal is None else task.signal.take(segments.group)
    ts = task.ts[segments.group[:, None], segments.index]
    intervals = Intervals(start=ts[:, 0], save_at=ts, signal=signal)
    data, weights = segments.take(task.ys()), segments.take(task.weights)
    weights = weights * segments.is_counted[..., None]
    base, interior, scale = _segment_starts(task, segments), segments.interior, task.latent_scale()
    opening = (segments.index[:, 0] == 0).nonzero()[:, 0]
    order = torch.cat([opening, interior]).argsort()
    simulate = Simulator(task, intervals, stepping)

    def losses() -> Tensor:
        free = base + shift * scale
        z0 = torch.cat([task.latent_start().expand(task.members, -1, -1), free], dim=1)[:, order]
        ys = simulate(z0)
        misfit = (weights * (ys - data).square()).sum(dim=(1, 2, 3))
        ends = task.model.coordinates.encode(ys[:, interior - 1, -1])
        gaps = ((ends - free) / scale).square()
        gap = gaps.mean(dim=(1, 2)) if len(interior) else torch.zeros_like(misfit)
        return misfit + continuity * gap + task.penalty()

    return losses


def _segment_starts(task: Task, segments: Segments) -> Tensor:
    """Return the states at which interior segments begin, in the model's coordinates, `(members, interior, states)`.

    Measurements where there are any, else the smoothed curve, else the initial state.
    """
    group, index = segments.group[segments.interior], segments.index[segments.interior, 0]
    t = task.ts[group, index]
    rows = []
    for data, curves, start in zip(
        task.data, task.curves, task.start.values.expand(len(task.data), -1, -1), strict=True
    ):
        measured = data.ys[group, index]
        grid = curves.ts[group]
        nearest = (grid - t[:, None]).abs().argmin(dim=1)
        smooth = curves.ys[group, nearest]
        y = torch.where(measured.isnan(), smooth, measured)
        rows.append(torch.where(y.isnan(), start[group], y))
    y = torch.stack(rows).expand(task.members, -1, -1)
    positive_states = torch.tensor([name in task.model.coordinates.positive for name in task.model.states])
    y = torch.where(positive_states, torch.maximum(y, 1e-3 * task.scales.state), y)
    return task.model.coordinates.encode(y)
