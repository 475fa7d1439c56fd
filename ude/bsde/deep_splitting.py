"""Deep splitting: one regression per time step, backwards from the terminal value."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ude.bsde.networks import PAIRS, LinearGuess, Network, Start, corrected
from ude.bsde.paths import EqualSteps, Paths, Sampler
from ude.bsde.training import Course, Training


class SplittingModel(nn.Module):
    r"""One function per time step, $u_n(x) = G(t_n, x) + s\,a_n(x) + b_n(x)\,G(t_n, x)$; the last one is g.

    Args:
        start: The problem.
        network: Architecture of each.
        generator: Source of the initial weights.
        steps: Number of steps.
    """

    def __init__(self, start: Start, network: Network, generator: torch.Generator, steps: int) -> None:
        super().__init__()
        self.problem, self.steps = start, steps
        self.guess = LinearGuess(start, PAIRS, generator)
        self.networks = nn.ModuleList(network.build(len(start.x0), 2, start.x0, generator) for _ in range(steps))
        self.trained_from = steps
        """Steps before this one are not trained yet; they take the function of this one."""

    def with_gradient(self, n: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return $u_n(x)$, shape `(*batch, 1)`, and its gradient."""
        start = self.problem
        t = start.t0 + (start.pde.t1 - start.t0) * n / self.steps
        guess = self.guess.with_gradient(x.new_full((*x.shape[:-1], 1), t), x)
        if n == self.steps:
            return guess
        return corrected(lambda x: self.networks[n](start.point(x)), x, start.scale, *guess)

    def start(self) -> Tensor:
        """Return the first function at the start."""
        return self.with_gradient(self.trained_from, self.problem.x0[None])[0].squeeze()

    def gradients(self, paths: Paths) -> Tensor:
        """Return the gradient along paths."""
        return torch.stack([self.with_gradient(max(n, self.trained_from), x)[1] for n, x in enumerate(paths.states)])

    def gradient(self, t: Tensor, x: Tensor) -> Tensor:
        """Return the gradient of the step in which t lies, at points."""
        elapsed = (1.0 - self.problem.remaining(t)) * self.steps
        # Times of a grid may lie a rounding error before their step.
        step = (elapsed + 1e-3).floor().clamp(self.trained_from, self.steps).expand(*x.shape[:-1], 1)
        found = torch.zeros_like(x)
        for n in step.unique().tolist():
            found = torch.where(step == n, self.with_gradient(int(n), x)[1], found)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSplitting:
    r"""Learn $u_n(x)$ for $n = N - 1, \ldots, 0$, each from the next by least squares.

    $$u_n(X_n) \approx \mathbb{E}\bigl[u_{n+1}(X_{n+1}) + h f(t_{n+1}, X_{n+1}, u_{n+1}, \nabla u_{n+1})
    \,\big|\, X_n\bigr]$$

    The known mean-zero part $\nabla u_{n+1}(X_n) \cdot \sigma \Delta W_n$ is taken off before the regression, which
    leaves a small fraction of its variance. Every network starts from the one before.

    Args:
        paths: How forward paths are drawn.
        network: Architecture of each network.
        training: Length and speed of each regression.

    Reference: C. Beck, S. Becker, P. Cheridito, A. Jentzen and A. Neufeld (2021), Deep splitting method for parabolic
    PDEs, SIAM Journal on Scientific Computing 43.
    """

    paths: Sampler = field(default_factory=EqualSteps)
    network: Network = field(default_factory=Network)
    training: Training = field(default_factory=lambda: Training(iterations=40, paths=256, lr=0.003))

    @property
    def iterations(self) -> int:
        """Iterations altogether."""
        return self.training.iterations * self.paths.steps

    def build(self, start: Start, weights: torch.Generator) -> SplittingModel:
        """Return the model before training."""
        return SplittingModel(start, self.network, weights, self.paths.steps)

    def train(self, model: SplittingModel, start: Start, course: Course, generator: torch.Generator | None) -> None:
        """Train one network after the other."""
        unknown = torch.full_like(start.mean, torch.nan)
        for n in reversed(range(self.paths.steps)):
            if n + 1 < self.paths.steps:
                model.networks[n].load_state_dict(model.networks[n + 1].state_dict())

            def loss(n: int = n) -> Tensor:
                paths = self.paths.draw(start.pde, start.x0, start.t0, self.training.paths, generator)
                missed = model.with_gradient(n, paths.xs[n])[0] - _target(model, start, paths, n)
                return (missed / start.scale).square().mean()

            course.minimise(loss, lambda: unknown, [(model.networks[n].parameters(), 1.0)], self.training)
            model.trained_from = n


@torch.no_grad()
def _target(model: SplittingModel, start: Start, paths: Paths, n: int) -> Tensor:
    """Return what step n is regressed on, shape `(paths, 1)`."""
    ahead, gradient = model.with_gradient(n + 1, paths.xs[n + 1])
    t = paths.ts[n + 1].expand(len(ahead), 1)
    h = paths.ts[n + 1] - paths.ts[n]
    known = (model.with_gradient(n + 1, paths.xs[n])[1] * paths.noise[n]).sum(-1, keepdim=True)
    return ahead + h * start.pde.driver(t, paths.xs[n + 1], ahead, gradient) - known
