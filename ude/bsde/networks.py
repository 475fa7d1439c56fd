"""Networks for the solution and its gradient, in the scales of the problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from ude.ad import grad, vjp
from ude.bsde.equation import SemilinearPDE
from ude.bsde.paths import Paths
from ude.models import MLP

_PILOTS = 1000
"""Paths from which scales are taken."""
PAIRS = 2
"""Pairs of noises in a linear guess: the network corrects what so few cannot average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Architecture of the hidden layers.

    Args:
        width: Width of the hidden layers.
        depth: Number of hidden layers.
        activation: As of `ude.MLP`.
    """

    width: int = 64
    depth: int = 2
    activation: str | Callable[[Tensor], Tensor] = "tanh"

    def build(
        self, inputs: int, outputs: int, like: Tensor, generator: torch.Generator, *, replicates: int | None = None
    ) -> MLP:
        """Return a network that starts close to zero."""
        return MLP(
            inputs,
            outputs,
            width=self.width,
            depth=self.depth,
            activation=self.activation,
            replicates=replicates,
            final_scale=0.1,
            generator=generator,
            dtype=like.dtype,
        ).to(like.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """An equation, where its solution is wanted, and sizes that a few paths from there show.

    Args:
        pde: The equation.
        x0: The point, shape `(d,)`.
        t0: The time.
        center: Mean of the states over all times, shape `(d,)`.
        spread: Their standard deviation, shape `(d,)`.
        mean: Mean of the terminal value g.
        scale: Its standard deviation, as a scale of u.
        slope: Root mean square of a component of its gradient, as a scale of the gradient of u.
    """

    pde: SemilinearPDE
    x0: Tensor
    t0: float
    center: Tensor
    spread: Tensor
    mean: Tensor
    scale: Tensor
    slope: Tensor

    @classmethod
    def of(cls, pde: SemilinearPDE, x0: Tensor, t0: float, draw: Callable[[int], Paths]) -> Start:
        """Measure the sizes along paths from `draw(count)`.

        Raises:
            ValueError: If paths or terminal values are not finite.
        """
        paths = draw(_PILOTS)
        reached = paths.xs.isfinite().all(-1).all(-1)
        if not bool(reached.all()):
            t = float(paths.ts[int(reached.int().argmin())])
            raise ValueError(
                f"The forward process leaves the finite numbers at t = {t:.6g}. Drift or diffusion grow too fast for "
                f"{len(paths.ts) - 1} steps: take more of them, or an adaptive method."
            )
        value = pde.terminal(paths.end)
        if not bool(value.isfinite().all()):
            raise ValueError(
                f"`g` is not finite at {int((~value.isfinite()).sum())} of {_PILOTS} ends of the forward process."
            )
        spread = (paths.xs - paths.xs.mean((0, 1))).square().mean((0, 1)).sqrt()
        scale = _positive(value.std(), value.abs().mean())
        return cls(
            pde=pde,
            x0=x0,
            t0=t0,
            center=paths.xs.mean((0, 1)),
            spread=torch.where(spread > 0, spread, 1.0),
            mean=value.mean(),
            scale=scale,
            slope=_positive(terminal_gradient(pde, paths.end).square().mean().sqrt(), scale / spread.norm()),
        )

    def remaining(self, t: Tensor) -> Tensor:
        """Return the part of the time that is left, 1 at `t0` and 0 at the end."""
        return (self.pde.t1 - t) / (self.pde.t1 - self.t0)

    def features(self, t: Tensor, x: Tensor) -> Tensor:
        """Return time and point in units in which both are of size one, shape `(*batch, d + 1)`."""
        return torch.cat([1.0 - 2.0 * self.remaining(t), self.point(x)], -1)

    def point(self, x: Tensor) -> Tensor:
        """Return the point in units in which its coordinates are of size one."""
        return (x - self.center) / self.spread


@runtime_checkable
class Model(Protocol):
    """What a method trains: the gradient of the solution, and what it knows of the solution itself."""

    def gradients(self, paths: Paths) -> Tensor:
        """Return the gradient of u at every state of the paths but the last, shape `(steps, paths, d)`."""
        ...

    def gradient(self, t: Tensor, x: Tensor) -> Tensor:
        """Return the gradient of u, shape `(*batch, d)`."""
        ...

    def start(self) -> Tensor:
        """Return the present guess of u at the start, a single number."""
        ...


class GradientModel(nn.Module):
    r"""A number for $u(t_0, x_0)$, and a network for the gradient.

    $$\nabla u(t, x) = s\,a(t, x) + b(t, x)\,\nabla g(x)$$

    with a scale s. Toward the end the gradient is that of g, and often it keeps its direction: b learns by how much it
    shrinks, in place of d functions. Where g has no derivative the first term stands alone.

    Args:
        start: The problem.
        network: Architecture.
        generator: Source of the initial weights.
        steps: With one network per step, their number; one for all times otherwise.
    """

    def __init__(self, start: Start, network: Network, generator: torch.Generator, *, steps: int | None = None) -> None:
        super().__init__()
        d = len(start.x0)
        self.problem, self.steps = start, steps
        self.shift = nn.Parameter(torch.zeros_like(start.mean))
        # With a network of its own, a step needs no time.
        inputs = d + 1 if steps is None else d
        self.network = network.build(inputs, d + 1, start.x0, generator, replicates=steps)

    def start(self) -> Tensor:
        """Return the number."""
        return self.problem.mean + self.problem.scale * self.shift

    def gradients(self, paths: Paths) -> Tensor:
        """Return the gradient along paths."""
        if self.steps is None:
            return self.gradient(paths.times, paths.states)
        return self._combine(self.network(self.problem.point(paths.states)), paths.states)

    def gradient(self, t: Tensor, x: Tensor) -> Tensor:
        """Return the gradient at points; with one network per step, that of the step in which t lies."""
        if self.steps is None:
            return self._combine(self.network(self.problem.features(t, x)), x)
        every = self.network(self.problem.point(x).expand(self.steps, *x.shape))
        elapsed = (1.0 - self.problem.remaining(t)) * self.steps
        # Times of a grid may lie a rounding error before their step.
        step = (elapsed + 1e-3).floor().long().clamp(0, self.steps - 1).expand(*x.shape[:-1], 1)
        return self._combine(every.gather(0, step.expand(*x.shape[:-1], every.shape[-1])[None])[0], x)

    def _combine(self, outputs: Tensor, x: Tensor) -> Tensor:
        d = x.shape[-1]
        return self.problem.slope * outputs[..., :d] + outputs[..., d:] * terminal_gradient(self.problem.pde, x)


class LinearGuess(nn.Module):
    r"""What u would be without f, roughly: the mean of g after one Euler step to the end.

    $$G(t, x) = \frac1K \sum_k g\bigl(x + (T - t)\,\mu + \sqrt{T - t}\;\sigma \xi_k\bigr)$$

    with few fixed normal $\xi_k$ in pairs of opposite sign. It is g at the end, and far from there a better guess than
    g(x) itself, where g differs between points that are reached and the start.

    Args:
        start: The problem.
        pairs: Half of K.
        generator: Source of the noises.
    """

    noises: Tensor

    def __init__(self, start: Start, pairs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.problem = start
        x = start.x0[None]
        size = start.pde.diffusion_at(x.new_full((1, 1), start.t0), x).noise_size(len(start.x0))
        half = torch.randn(pairs, size, generator=generator, dtype=x.dtype).to(x.device)
        self.register_buffer("noises", torch.cat([half, -half]))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return G, shape `(*batch, 1)`."""
        pde = self.problem.pde
        left = (pde.t1 - t).clamp_min(0.0)
        center, sigma = x + left * pde.drift_at(t, x), pde.diffusion_at(t, x)
        ends = [center + sigma.spread(left.sqrt() * noise) for noise in self.noises]
        return pde.terminal(torch.stack(ends)).mean(0)

    def with_gradient(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return G and its gradient, zero where it has none."""
        with torch.no_grad():
            value, pullback = vjp(lambda x: self(t, x), x)
            return value, cast("Tensor", pullback(torch.ones_like(value))[0]).nan_to_num(0.0, 0.0, 0.0)


class ValueModel(nn.Module):
    r"""A network for the solution that holds the terminal value by construction.

    $$u(t, x) = G(t, x) + \tau\,(s\,a(t, x) + b(t, x)\,G(t, x)), \qquad \tau = \frac{T - t}{T - t_0}$$

    with the scale s of g and the linear guess G. Its gradient is one reverse product through the network.

    Args:
        start: The problem.
        network: Architecture.
        generator: Source of the initial weights.
    """

    def __init__(self, start: Start, network: Network, generator: torch.Generator) -> None:
        super().__init__()
        self.problem = start
        self.guess = LinearGuess(start, PAIRS, generator)
        self.network = network.build(len(start.x0) + 1, 2, start.x0, generator)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return u, shape `(*batch, 1)`."""
        guess, outputs = self.guess(t, x), self.network(self.problem.features(t, x))
        return guess + self.problem.remaining(t) * (self.problem.scale * outputs[..., :1] + outputs[..., 1:] * guess)

    def with_gradient(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and its gradient, both recorded where gradients are."""
        tau = self.problem.remaining(t)

        def network(x: Tensor) -> Tensor:
            return tau * self.network(self.problem.features(t, x))

        return corrected(network, x, self.problem.scale, *self.guess.with_gradient(t, x))

    def start(self) -> Tensor:
        """Return u at the start."""
        x = self.problem.x0[None]
        return self(x.new_full((1, 1), self.problem.t0), x).squeeze()

    def gradients(self, paths: Paths) -> Tensor:
        """Return the gradient along paths."""
        return self.gradient(paths.times, paths.states)

    def gradient(self, t: Tensor, x: Tensor) -> Tensor:
        """Return the gradient at points."""
        return self.with_gradient(t, x)[1]


def corrected(
    network: Callable[[Tensor], Tensor], x: Tensor, scale: Tensor, guess: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Return $G + s\,a(x) + b(x)\,G$ and its gradient, from a network for (a, b) and a guess with its gradient.

    Both are recorded for the weights of the network where gradients are; not for x.
    """
    recording = torch.is_grad_enabled()
    weights = torch.cat([scale.expand_as(guess), guess], -1)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        outputs = network(x)
        (inner,) = grad(outputs, [x], weights, create_graph=recording)
    if not recording:
        outputs = outputs.detach()
    u = guess + (weights * outputs).sum(-1, keepdim=True)
    return u, inner + (1.0 + outputs[..., 1:]) * slope


def terminal_gradient(pde: SemilinearPDE, x: Tensor) -> Tensor:
    r"""Return $\nabla g(x)$, shape `(*batch, d)`, zero where g has no derivative."""
    with torch.no_grad():
        value, pullback = vjp(pde.terminal, x)
        return cast("Tensor", pullback(torch.ones_like(value))[0]).nan_to_num(0.0, 0.0, 0.0)


def _positive(size: Tensor, otherwise: Tensor) -> Tensor:
    """Return the first of the two that can serve as a scale, or one."""
    for candidate in (size, otherwise):
        if bool(candidate.isfinite()) and float(candidate) > 0:
            return candidate
    return torch.ones_like(size)
