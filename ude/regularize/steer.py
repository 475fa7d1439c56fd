"""Solving to a time that is drawn anew for every batch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude.problems import ODEProblem, Solution
from ude.regularize.regularizer import Regularizer, Times


@dataclass(frozen=True, slots=True)
class Steer(Regularizer):
    r"""Draw the times at which the trajectory is compared with data: $t_i \sim U(t_i - w\,h_i,\; t_i + w\,h_i)$.

    Where only the end of the interval is asked for, $h$ is its length, and the end moves; of several times to save at,
    $h_i$ is the distance to the nearer neighbour, and they stay within the interval and in order. The first time stays.
    The cost itself is zero: it is `prepare`, or `times`, that acts, once for each solve.

    Args:
        width: $w$, up to 0.5, the published width.
        generator: Source of randomness; torch's own if not given.

    Raises:
        ValueError: If the width does not lie in (0, 0.5].

    Example:
        >>> steer = Steer(0.5, generator=torch.Generator().manual_seed(0))
        >>> steer.times(torch.tensor([0.0, 1.0]))
        tensor([0.0000, 0.9963])

    Reference:
        Behl, Ghosh, Dupont, Torr & Namboodiri (2020), STEER: simple temporal regularization for neural ODEs, NeurIPS.
    """

    width: float = 0.5
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0.0 < self.width <= 0.5:
            raise ValueError(f"`width` is a fraction of the distance between times, in (0, 0.5], got {self.width}.")

    def times(self, ts: Tensor) -> Tensor:
        """Return times of shape `(times,)`, the start first, with all but the first drawn anew."""
        if ts.ndim != 1 or len(ts) < 2:
            raise ValueError(f"`ts` must hold the start and at least one more time, got shape {tuple(ts.shape)}.")
        steps = ts.diff()
        reach = torch.minimum(steps.abs(), torch.cat([steps[1:], steps[-1:]]).abs())
        moved = ts[1:] + self._signs(reach) * self.width * reach
        if len(ts) > 2:
            moved = torch.clamp(moved, torch.minimum(ts[0], ts[-1]), torch.maximum(ts[0], ts[-1]))
        return torch.cat([ts[:1], moved])

    def prepare(self, problem: ODEProblem, save_at: Times = None) -> tuple[ODEProblem, Times]:
        """Return the problem with another end, or, where several times are saved, other times in the same interval."""
        like = pytree.tree_leaves(problem.y0)[0].real
        t0, t1 = (torch.as_tensor(t).to(like) for t in problem.t_span)
        ts = t1.unsqueeze(0) if save_at is None else torch.as_tensor(save_at).to(like)
        if len(ts) == 1:  # nothing but the end is asked for
            end = ts[0] + self._signs(ts[0]) * self.width * (ts[0] - t0).abs()
            return replace(problem, t_span=(problem.t_span[0], end)), None if save_at is None else end.unsqueeze(0)
        starts = ts.ndim == 1 and bool(ts[0] == t0)
        return problem, self.times(ts) if starts else self.times(torch.cat([t0.reshape(1), ts]))[1:]

    def measure(self, solution: Solution) -> Tensor:
        """Return zero."""
        return solution.ts.new_zeros(())

    def _signs(self, like: Tensor) -> Tensor:
        """Return numbers drawn uniformly from -1 to 1."""
        device = like.device if self.generator is None else self.generator.device
        draw = torch.rand(like.shape, dtype=like.dtype, device=device, generator=self.generator)
        return 2.0 * draw.to(like.device) - 1.0
