"""A layer whose output is the solution of a stochastic differential equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ude._typing import State
from ude.brownian import BrownianGrid, BrownianTree, RecordedPath
from ude.methods import SOSRI
from ude.models.integrator import Integrator
from ude.problems import Interpretation, Noise, SDEProblem, Solution
from ude.solve import Eager

SHARED_STEPS = Integrator(method=SOSRI(), rtol=1e-2, atol=1e-2)
"""How a stochastic model is solved by default: adaptive steps, shared by a mini-batch, strong order 1.5."""


class NeuralSDE(nn.Module):
    r"""Neural stochastic differential equation: $dy = f(t, y)\, dt + g(t, y)\, dW$ with networks $f$ and $g$.

    `model(y0)` is a random state at the end, `model(y0, trajectories=10)` ten of them for every sample;
    `model.solve(y0)` is the whole solution, whose `steps` a regularizer weighs. With a `torch.Generator` of the same
    state every call has the same noise. Gradients are those along the path.

    A mini-batch is one state by default: all samples and trajectories share every step, and with diagonal noise each
    has noise of its own. With any other noise take `Integrator(batched=True)`, since the components of one state feel
    one noise; each sample then has steps of its own.

    Args:
        drift: $f$, called as `f(t, y)`, a module if it has parameters: `DenseField`, `Autonomous`, `UDE` or one's own.
        diffusion: $g$, called likewise; returns what `noise` asks for, see `SDEProblem`.
        t_span: Start and end of the interval, forward in time.
        noise: How the diffusion depends on state and noise, as in `SDEProblem`.
        interpretation: Of the integral: `"ito"` or `"stratonovich"`.
        integrator: How the equation is solved; by default `SOSRI()` with tolerances of 1e-2.

    Raises:
        ValueError: If drift or diffusion cannot be called, or `t_span` is no pair.

    Example:
        >>> from ude.models import MLP, Autonomous
        >>> seed = torch.Generator().manual_seed(0)
        >>> model = NeuralSDE(Autonomous(MLP(3, 3, generator=seed)), Autonomous(MLP(3, 3, depth=0, generator=seed)))
        >>> model(torch.zeros(5, 3, dtype=torch.float64), trajectories=10, generator=seed).shape
        torch.Size([10, 5, 3])

    Reference:
        Liu, Xiao, Si, Cao, Kumar & Hsieh (2019), Neural SDE: stabilizing neural ODE networks with stochastic noise,
        arXiv:1906.02355. Li, Wong, Chen & Duvenaud (2020), Scalable gradients for stochastic differential equations,
        AISTATS.
    """

    def __init__(
        self,
        drift: Callable[..., State],
        diffusion: Callable[..., State],
        *,
        t_span: tuple[float, float] = (0.0, 1.0),
        noise: Noise = "diagonal",
        interpretation: Interpretation = "ito",
        integrator: Integrator = SHARED_STEPS,
    ) -> None:
        super().__init__()
        for name, part in {"drift": drift, "diffusion": diffusion}.items():
            if not callable(part) or isinstance(part, type):
                raise ValueError(f"`{name}` must be a module or function called as f(t, y), got {part!r}.")
        if len(t_span) != 2:
            raise ValueError(f"`t_span` must be a pair (start, end), got {t_span!r}. Name other times in `save_at`.")
        self.drift, self.diffusion = drift, diffusion
        self.t_span = (t_span[0], t_span[1])
        self.noise: Noise = noise
        self.interpretation: Interpretation = interpretation
        self.integrator = integrator

    def forward(self, y0: State, *, trajectories: int | None = None, generator: torch.Generator | None = None) -> State:
        """Return states at the end of the interval.

        Args:
            y0: State at the start, see `solve`.
            trajectories: Of every sample.
            generator: Source of the noise.

        Returns:
            One state in the structure and shape of `y0`, or, with `trajectories`, that many along a new first axis.
        """
        solution = self.solve(y0, trajectories=trajectories, generator=generator, save_at=[self.t_span[1]], dense=False)
        return pytree.tree_map(lambda y, start: y[-1].reshape(_several(trajectories, start)), solution.ys, y0)

    def solve(
        self,
        y0: State,
        *,
        trajectories: int | None = None,
        generator: torch.Generator | None = None,
        save_at: Tensor | Sequence[float] | None = None,
        t_span: tuple[float | Tensor, float | Tensor] | None = None,
        dense: bool = True,
    ) -> Solution:
        """Solve the equation from `y0`.

        Args:
            y0: State at the start: a mini-batch `(*batch, state)` or any other tensor or pytree that the drift takes.
            trajectories: Of every sample, each with noise of its own; one, without an axis for it, if not given.
            generator: Source of the noise; the global one of torch if not given.
            save_at: Times of the states to return, shape `(times,)`; by default the start and the end of every step.
            t_span: Another interval for this call.
            dense: Keep the continuous solution, lines between the ends of the steps.

        Returns:
            The solution, with states of shape `(times, *y0.shape)`, or `(times, trajectories, *y0.shape)`. With
            `Integrator(batched=True)`, where the first axis is that of independent samples, trajectories and samples
            share it: `(times, trajectories * batch, ...)`.

        Raises:
            ValueError: If an argument cannot be used.
            SolveError: If the solve fails.
        """
        problem = self.problem(y0, trajectories=trajectories, generator=generator, t_span=t_span)
        return self.integrator.solve(problem, save_at=save_at, dense=dense)

    def problem(
        self,
        y0: State,
        *,
        trajectories: int | None = None,
        generator: torch.Generator | None = None,
        t_span: tuple[float | Tensor, float | Tensor] | None = None,
    ) -> SDEProblem:
        """Return the problem that `solve` solves, its path drawn; solve it with `model.integrator.solve`."""
        if trajectories is not None and (not isinstance(trajectories, int) or trajectories < 1):
            raise ValueError(f"`trajectories` must be an integer of at least 1, or None, got {trajectories!r}.")
        batched = self.integrator.batched

        def repeated(y: Tensor) -> Tensor:
            many = y.expand(_several(trajectories, y))
            return many.flatten(0, 1) if batched and trajectories is not None else many

        return SDEProblem(
            self.drift,
            self.diffusion,
            pytree.tree_map(repeated, y0),
            self.t_span if t_span is None else t_span,
            noise=self.noise,
            interpretation=self.interpretation,
            batched=batched,
            path=drawn_path(self.integrator, generator),
        )

    def extra_repr(self) -> str:
        """Name interval, noise and tolerances."""
        integrator = self.integrator
        return (
            f"t_span={self.t_span}, noise={self.noise!r}, method={integrator.method}, rtol={integrator.rtol}, "
            f"atol={integrator.atol}"
        )


def drawn_path(integrator: Integrator, generator: torch.Generator | None) -> BrownianTree | BrownianGrid:
    """Return a new path of the kind that costs least with these options, its seed drawn from the generator."""
    controller, method = integrator.controller, integrator.method
    adapts = getattr(method, "error_order", None) is not None if controller is None else controller.needs_error
    if not adapts:
        return BrownianGrid.drawn(generator)
    is_eager = integrator.engine == "eager" or isinstance(integrator.engine, Eager)
    # Compiled steps compute their path; what is remembered is not theirs to change.
    return (RecordedPath if is_eager and not integrator.batched else BrownianTree).drawn(generator)


def _several(trajectories: int | None, y: Tensor) -> tuple[int, ...]:
    """Return the shape of a state with an axis for trajectories if there are several."""
    return tuple(y.shape) if trajectories is None else (trajectories, *y.shape)
