"""Brownian motions of torchsde, followed by methods of this library."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.brownian import Increment
from ude.compat.errors import ArgumentError
from ude.compat.wrapped import Wrapped
from ude.methods import Carry, StepResult, StochasticField, StochasticMethod, Tolerances
from ude.methods.method import take_step
from ude.methods.stochastic_steps import stochastic
from ude.problems import Interpretation, Noise


@dataclass(frozen=True, slots=True)
class ForeignPath:
    """The increments of a Brownian motion of torchsde, a `BoundPath`.

    Args:
        bm: A `BrownianInterval`, `BrownianPath`, `BrownianTree` or anything that is called like them.
        ts: Times at which steps end, ascending. Steps come there but for rounding, and a Brownian motion moves by
            1e-8 in a gap of 1e-16 between two questions.
    """

    bm: Any
    ts: tuple[float, ...]

    def wiener(self, t: Tensor, dt: Tensor) -> Tensor:
        """Return the increments in a step; zero where a row stands still."""
        w = self.bm(*self._times(t, dt))
        return torch.where((dt != 0.0).unsqueeze(-1), w, 0.0)

    def increment(self, t: Tensor, dt: Tensor) -> Increment:
        r"""Return increments and areas likewise.

        torchsde tells $U = \int_s^t (W_u - W_s)\, du$, from which $H = U / h - W / 2$.

        Raises:
            ArgumentError: If the Brownian motion does not have it.
        """
        if getattr(self.bm, "levy_area_approximation", None) in (None, "none"):
            raise ArgumentError(
                "This method needs the integral of the Brownian motion over a step. Give a `bm` with "
                "`levy_area_approximation='space-time'`, or a `ude.BrownianTree`."
            )
        start, end = self._times(t, dt)
        w, u = self.bm(start, end, return_U=True)
        h = u / (end - start) - 0.5 * w if end > start else torch.zeros_like(w)
        moves = (dt != 0.0).unsqueeze(-1)
        return Increment(torch.where(moves, w, 0.0), torch.where(moves, h, 0.0))

    def _times(self, t: Tensor, dt: Tensor) -> tuple[float, float]:
        """Return the ends of a step; rows that stand still are behind, or make a step of zero."""
        start, end = float(t.detach().max()), float((t + dt).detach().max())
        slack = 8 * torch.finfo(t.dtype).eps * max(abs(self.ts[0]), abs(self.ts[-1]))
        after = bisect_left(self.ts, end - slack)
        if after < len(self.ts) and self.ts[after] <= end + slack:
            end = self.ts[after]
        return start, max(start, end)


@dataclass(frozen=True, slots=True)
class DrivenField:
    """Drift and diffusion with another path.

    Args:
        field: Drift and diffusion.
        path: The path.
    """

    field: StochasticField
    path: ForeignPath

    @property
    def is_diagonal(self) -> bool:
        """Diffusions have the shape of the state."""
        return self.field.is_diagonal

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the drift."""
        return self.field(t, y)

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the diffusion."""
        return self.field.diffusion(t, y)

    def wiener(self, t: Tensor, dt: Tensor) -> Tensor:
        """Return the increment of the path in a step."""
        return self.path.wiener(t, dt)

    def increment(self, t: Tensor, dt: Tensor) -> Increment:
        """Return increment and area of the path in a step."""
        return self.path.increment(t, dt)


@dataclass(frozen=True, slots=True)
class Driven(Wrapped):
    """A method that follows a path of the caller's instead of that of the problem.

    Args:
        method: The method.
        path: What it follows.
    """

    method: StochasticMethod
    path: ForeignPath

    @property
    def noises(self) -> tuple[Noise, ...]:
        """The kinds of noise it solves."""
        return self.method.noises

    @property
    def interpretation(self) -> Interpretation | None:
        """The stochastic integral that it approximates."""
        return self.method.interpretation

    def step_within(
        self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry, tolerances: Tolerances
    ) -> StepResult:
        """Take one step from `t` to `t + dt` along the path."""
        return take_step(self.method, DrivenField(stochastic(f), self.path), t, dt, y, carry, tolerances)
