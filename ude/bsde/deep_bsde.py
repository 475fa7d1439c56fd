"""The deep BSDE method: a number and a gradient that lead to the terminal value."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ude.bsde.networks import GradientModel, Network, Start
from ude.bsde.paths import EqualSteps, Sampler
from ude.bsde.rollout import follow
from ude.bsde.training import Course, Training

_START_RATE = 5.0
"""Factor on the learning rate of u(t0, x0): one number that every path agrees on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepBSDE:
    r"""Learn $u(t_0, x_0)$ and $\nabla u$ such that the backward equation ends in g.

    $$\min_{u_0, \theta} \mathbb{E}\,\bigl|u_N - g(X_N)\bigr|^2, \qquad
    u_{n+1} = u_n - h f(t_n, X_n, u_n, p_\theta) + p_\theta(t_n, X_n) \cdot \sigma \Delta W_n$$

    Args:
        paths: How forward paths are drawn.
        network: Architecture of the network for the gradient.
        training: Length and speed.
        per_step: One network per time step, as first published, in place of one for all times.

    Reference: E, Han and Jentzen (2017), Deep learning-based numerical methods for high-dimensional parabolic partial
    differential equations and backward stochastic differential equations.
    """

    paths: Sampler = field(default_factory=EqualSteps)
    network: Network = field(default_factory=Network)
    training: Training = field(default_factory=Training)
    per_step: bool = False

    @property
    def iterations(self) -> int:
        """Iterations altogether."""
        return self.training.iterations

    def build(self, start: Start, weights: torch.Generator) -> GradientModel:
        """Return the model before training."""
        return GradientModel(start, self.network, weights, steps=self.paths.steps if self.per_step else None)

    def train(self, model: GradientModel, start: Start, course: Course, generator: torch.Generator | None) -> None:
        """Train it."""

        def loss() -> Tensor:
            paths = self.paths.draw(start.pde, start.x0, start.t0, self.training.paths, generator)
            missed = follow(start.pde, paths, model.start(), model.gradients(paths))
            return (missed / start.scale).square().mean()

        groups = [(model.network.parameters(), 1.0), ([model.shift], _START_RATE)]
        course.minimise(loss, model.start, groups, self.training)
