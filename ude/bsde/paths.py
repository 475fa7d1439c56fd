"""Paths of the forward process, along which the solution is followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ude.bsde.equation import SemilinearPDE


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    r"""Paths of $dX = \mu\,dt + \sigma\,dW$ at common times.

    Args:
        ts: Times, shape `(steps + 1,)`.
        xs: States, shape `(steps + 1, paths, d)`.
        noise: What of every step is noise, $\sigma\,dW$, shape `(steps, paths, d)`: the solution moves by
            $\nabla u \cdot \sigma\,dW$ with it.
    """

    ts: Tensor
    xs: Tensor
    noise: Tensor

    @property
    def times(self) -> Tensor:
        """Time of every state but the last, shape `(steps, paths, 1)`."""
        return self.ts[:-1, None, None].expand(*self.noise.shape[:2], 1)

    @property
    def states(self) -> Tensor:
        """Every state but the last, shape `(steps, paths, d)`."""
        return self.xs[:-1]

    @property
    def end(self) -> Tensor:
        """The last states, shape `(paths, d)`."""
        return self.xs[-1]


@runtime_checkable
class Sampler(Protocol):
    """A way to draw paths, on a grid that does not change between calls."""

    @property
    def steps(self) -> int:
        """Number of steps of the grid."""
        ...

    def draw(self, pde: SemilinearPDE, x0: Tensor, t0: float, count: int, generator: torch.Generator | None) -> Paths:
        """Return so many paths that start in x0 at t0 and end at the equation's `t1`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualSteps:
    r"""Euler-Maruyama in steps of equal length, $X_{n+1} = X_n + h\,\mu(t_n, X_n) + \sigma(t_n, X_n)\,\Delta W_n$.

    All increments come from one call. Where drift and diffusion are constants the paths are one cumulative sum, exact
    at the grid.

    Args:
        steps: Number of steps.

    Raises:
        ValueError: If there is no step.
    """

    steps: int = 20

    def __post_init__(self) -> None:
        check_steps(self.steps)

    def draw(self, pde: SemilinearPDE, x0: Tensor, t0: float, count: int, generator: torch.Generator | None) -> Paths:
        """Return so many paths."""
        ts = torch.linspace(t0, pde.t1, self.steps + 1, dtype=x0.dtype, device=x0.device)
        h = (pde.t1 - t0) / self.steps
        x = x0.expand(count, -1)
        first = pde.diffusion_at(ts[0].expand(count, 1), x)
        shape = (self.steps, count, first.noise_size(len(x0)))
        increments = torch.randn(shape, dtype=x0.dtype, device=x0.device, generator=generator).mul_(h**0.5)
        if not callable(pde.drift) and not callable(pde.diffusion):
            noise = first.spread(increments)
            moved = x0 + (noise + h * pde.drift_at(ts[:1], x)).cumsum(0)
            return Paths(ts=ts, xs=torch.cat([x[None], moved]), noise=noise)
        xs, noise = [x], []
        for n in range(self.steps):
            t = ts[n].expand(count, 1)
            noise.append(pde.diffusion_at(t, xs[n]).spread(increments[n]))
            xs.append(xs[n] + h * pde.drift_at(t, xs[n]) + noise[n])
        return Paths(ts=ts, xs=torch.stack(xs), noise=torch.stack(noise))


def check_steps(steps: int) -> None:
    """Raise unless there is a step."""
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}.")
