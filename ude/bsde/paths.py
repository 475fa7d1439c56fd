"""Paths of the forward process, along which the solution is followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ude.brownian import BrownianGrid, BrownianTree
from ude.bsde.equation import SemilinearPDE
from ude.methods.stochastic_steps import StochasticMethod
from ude.problems import SDEProblem
from ude.solve import solve


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BySolver:
    r"""Paths by any method for stochastic equations, through `ude.solve`, kept at equal distances in time.

    Between two of these times an adaptive method makes as many steps as its tolerance asks for; one without an error
    estimate makes one. The increments of the Brownian motion are those that the solve has seen. A diagonal that is a
    function counts as diagonal noise, each entry depending on its own coordinate alone: if it does not, take a method
    for general noise and return matrices.

    128 paths in 100 dimensions take 4 ms by `EqualSteps`, 13 ms by `EulerMaruyama()` and one second by an adaptive
    method, whose Brownian tree can be asked for any time: that is for coefficients that equal steps do not follow.

    Args:
        method: The method, such as `ude.SOSRI()`; `ude.solve` chooses one if left out.
        steps: Number of intervals.
        rtol: Relative tolerance of an adaptive method.
        atol: Absolute tolerance, in the unit of the state.

    Raises:
        ValueError: If there is no step.
    """

    method: StochasticMethod | None = None
    steps: int = 20
    rtol: float = 1e-2
    atol: float = 1e-2

    def __post_init__(self) -> None:
        check_steps(self.steps)

    def draw(self, pde: SemilinearPDE, x0: Tensor, t0: float, count: int, generator: torch.Generator | None) -> Paths:
        """Return so many paths.

        Raises:
            SolveError: If the method fails on one of them.
        """
        seed = int(torch.randint(2**31, (), generator=generator, device=x0.device))
        ts = torch.linspace(t0, pde.t1, self.steps + 1, dtype=x0.dtype, device=x0.device)
        h = (pde.t1 - t0) / self.steps
        is_constant = self.method is not None and self.method.error_order is None
        path = BrownianGrid(seed) if is_constant else BrownianTree(seed)
        with torch.no_grad():
            xs = solve(
                _forward_problem(pde, x0.repeat(count, 1), (t0, pde.t1), path),
                self.method,
                save_at=ts,
                rtol=self.rtol,
                atol=self.atol,
                dt=h if is_constant else None,
                dense=False,
            ).ys
            start, components = (
                ts[:1].expand(count),
                pde.diffusion_at(ts[:1].expand(count, 1), xs[0]).noise_size(len(x0)),
            )
            if isinstance(path, BrownianGrid):
                bound = path.bind(ts.tolist(), start, components)
            else:
                bound = path.bind(start, ts[-1:].expand(count), components)
            noise = []
            for n in range(self.steps):
                sigma = pde.diffusion_at(ts[n].expand(count, 1), xs[n])
                length = ts[n + 1] - ts[n]
                noise.append(sigma.spread(bound.wiener(ts[n].expand(count), length.expand(count))))
        return Paths(ts=ts, xs=xs, noise=torch.stack(noise))


def _forward_problem(
    pde: SemilinearPDE, start: Tensor, t_span: tuple[float, float], path: BrownianGrid | BrownianTree
) -> SDEProblem:
    """Return the forward equation of a batch of paths."""
    first = pde.diffusion_at(start.new_full((len(start), 1), t_span[0]), start)

    def diffusion(t: Tensor, x: Tensor) -> Tensor:
        values = pde.diffusion_at(t, x).values
        return values.expand(*x.shape[:1], *x.shape[1:] if first.is_diagonal else values.shape[-2:])

    moving = "diagonal" if first.is_diagonal else "general"
    return SDEProblem(
        pde.drift_at,
        diffusion,
        start,
        t_span,
        noise=moving if callable(pde.diffusion) else "additive",
        batched=True,
        path=path,
    )


def check_steps(steps: int) -> None:
    """Raise unless there is a step."""
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}.")
