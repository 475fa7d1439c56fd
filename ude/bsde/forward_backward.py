"""The forward-backward network: the solution itself, which must satisfy the equation along every step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ude.bsde.networks import Network, Start, ValueModel
from ude.bsde.paths import EqualSteps, Sampler
from ude.bsde.training import Course, Training


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardBackward:
    r"""Learn $u_\theta(t, x)$ with its gradient by differentiation.

    $$\min_\theta \frac1N \sum_n \mathbb{E}\,\Bigl|\sum_{m \ge n} r_m\Bigr|^2, \qquad
    r_n = u_\theta(t_{n+1}, X_{n+1}) - u_\theta(t_n, X_n) + h f(t_n, X_n, u_\theta, \nabla u_\theta)
    - \nabla u_\theta \cdot \sigma \Delta W_n$$

    The terminal value holds by construction, so that it needs no term of its own. The residuals are summed from every
    step to the end. As published, each stands alone; but of a single step the error of the scheme,
    $\frac12 (\Delta W^T \sigma^T \nabla^2 u\, \sigma \Delta W - h \operatorname{tr} \sigma^T \nabla^2 u\, \sigma)$, is
    as large as what it is to measure, h times the residual of the equation. The minimum then has too small second
    derivatives however short the steps: 2 % off for the equation of Hamilton, Jacobi and Bellman in 10 dimensions with
    30 as with 60 steps. In the sum these errors average out.

    Args:
        paths: How forward paths are drawn.
        network: Architecture of the network; its activation must be differentiable twice.
        training: Length and speed.

    Reference: M. Raissi (2018), Forward-backward stochastic neural networks: deep learning of high-dimensional partial
    differential equations.
    """

    paths: Sampler = field(default_factory=EqualSteps)
    network: Network = field(default_factory=Network)
    training: Training = field(default_factory=Training)

    @property
    def iterations(self) -> int:
        """Iterations altogether."""
        return self.training.iterations

    def build(self, start: Start, weights: torch.Generator) -> ValueModel:
        """Return the model before training."""
        return ValueModel(start, self.network, weights)

    def train(self, model: ValueModel, start: Start, course: Course, generator: torch.Generator | None) -> None:
        """Train it."""

        def loss() -> Tensor:
            paths = self.paths.draw(start.pde, start.x0, start.t0, self.training.paths, generator)
            u, gradient = model.with_gradient(paths.times, paths.states)
            driver = start.pde.driver(paths.times, paths.states, u, gradient)
            gain = (gradient * paths.noise).sum(-1, keepdim=True)
            ahead = torch.cat([u[1:], start.pde.terminal(paths.end)[None]])
            missed = ahead - u + paths.ts.diff()[:, None, None] * driver - gain
            to_the_end = missed.flip(0).cumsum(0)
            return (to_the_end / start.scale).square().mean()

        course.minimise(loss, model.start, [(model.parameters(), 1.0)], self.training)
