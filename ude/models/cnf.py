"""A probability density that a vector field carries from a normal distribution to the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ude.ad import Estimator, divergence
from ude.models.integrator import Integrator
from ude.problems import ODEProblem, Solution


class FlowState(NamedTuple):
    """Points, and how the logarithm of the density has changed on their way.

    Args:
        z: Points, shape `(batch, features)`.
        log_p: Logarithm of the density at the point, less that where the solve began, shape `(batch,)`.
    """

    z: Tensor
    log_p: Tensor


class CNF(nn.Module):
    r"""Continuous normalizing flow: $z(t_0) \sim N(0, I)$, $\dot z = f(t, z)$, $x = z(t_1)$.

    Along a trajectory the density changes by $\frac{d}{dt} \log p(z(t)) = -\operatorname{tr} \partial f / \partial z$.
    `log_prob(x)` solves both equations back from $t_1$ to $t_0$; `solve(x)` hands out their solution, so that a
    training can weigh its steps:

    ```python
    solution = model.solve(x)
    loss = -model.log_density(solution).mean() + 0.01 * TaylorEnergy(2)(model.positions(solution))
    ```

    Args:
        field: Called as `f(t, z)` with `z` of shape `(batch, features)`; acts on every row by itself.
        features: Number of dimensions, D.
        t_span: Times of the normal distribution and of the data.
        estimator: None for the exact trace, at the cost of D directions. `Rademacher(1, per_sample=True)` or another
            estimator of `ude.ad` for Hutchinson's estimate $v^T J v$ (FFJORD), at the cost of one direction per sample;
            it is drawn once per solve, which makes the equation one with a fixed right-hand side.
        integrator: How the equations are solved. The change of the density counts in the norm of the error.

    Raises:
        ValueError: If an argument cannot be used.

    Example:
        >>> from ude.models.fields import Autonomous
        >>> shrink = CNF(Autonomous(nn.Identity()), 2, t_span=(0.0, 1.0))
        >>> point = torch.zeros(1, 2, dtype=torch.float64)  # density of N(0, e^2 I) at its centre
        >>> round(float(shrink.log_prob(point)), 4), round(-math.log(2 * math.pi) - 2, 4)
        (-3.8379, -3.8379)

    Reference:
        Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud (2019), FFJORD: free-form continuous dynamics for scalable
        reversible generative models, arXiv:1810.01367.
    """

    def __init__(
        self,
        field: nn.Module,
        features: int,
        *,
        t_span: tuple[float, float] = (0.0, 1.0),
        estimator: Estimator | None = None,
        integrator: Integrator = Integrator(),  # noqa: B008
    ) -> None:
        super().__init__()
        if not callable(field) or isinstance(field, type):
            raise ValueError(f"`field` must be a module or function called as f(t, z), got {field!r}.")
        if features < 1:
            raise ValueError(f"`features` must be at least 1, got {features}.")
        if estimator is not None and not isinstance(estimator, Estimator):
            raise ValueError(
                f"`estimator` must be None, for the exact trace, or an estimator such as `Rademacher(1)`, got "
                f"{estimator!r}."
            )
        self.field, self.features, self.estimator = field, features, estimator
        self.t_span = (t_span[0], t_span[1])
        self.integrator = integrator

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the logarithm of the density at points of shape `(batch, features)`, shape `(batch,)`.

        With an estimator it is an unbiased estimate.

        Raises:
            ValueError: If `x` has another shape.
            SolveError: If the solve fails.
        """
        return self.log_density(self.solve(x, save_at=[self.t_span[0]], dense=False))

    def solve(self, x: Tensor, *, save_at: Tensor | Sequence[float] | None = None, dense: bool = True) -> Solution:
        """Solve from the data back to the normal distribution.

        Args:
            x: Points, shape `(batch, features)`.
            save_at: Times of the states to return, in the direction of the solve; `log_density` needs the last one to
                be that of the normal distribution. By default the start and the end of every step.
            dense: Keep the continuous solution, which some regularizers ask for.

        Returns:
            The solution, whose states are a `FlowState`.

        Raises:
            ValueError: If `x` has another shape.
            SolveError: If the solve fails.
        """
        return self.integrator.solve(self.problem(x), save_at=save_at, dense=dense)

    def problem(self, x: Tensor) -> ODEProblem:
        """Return the problem that `solve` solves, for a regularizer whose `prepare` changes it.

        Solve what `prepare` returns with `model.integrator.solve`. The directions of an estimator are drawn here.
        """
        if x.ndim != 2 or x.shape[-1] != self.features:
            raise ValueError(f"`x` must have shape (batch, {self.features}), got {tuple(x.shape)}.")
        flow = Flow(self.field, None if self.estimator is None else _drawn(self.estimator, x))
        start, end = self.t_span
        return self.integrator.problem(flow, FlowState(x, x.new_zeros(len(x))), (end, start))

    def positions(self, solution: Solution) -> Solution:
        """Return a solution of `solve` as one of the points alone, with the same steps.

        For costs of derivatives such as `TaylorEnergy`, which do not go through the trace; the published ones are of
        the points alone, too. Costs of the steps are those of points and densities.
        """
        problem, interpolant = solution.problem, solution.interpolant
        if problem is None or not isinstance(problem.vector_field, Flow):
            raise ValueError("`positions` needs a solution that `CNF.solve` returned.")
        return replace(
            solution,
            ys=cast("FlowState", solution.ys).z,
            problem=replace(problem, vector_field=problem.vector_field.field, y0=problem.y0.z),
            interpolant=None if interpolant is None else lambda t: cast("FlowState", interpolant(t)).z,
        )

    def log_density(self, solution: Solution) -> Tensor:
        """Return the logarithm of the density where a solution of `solve` began, shape `(batch,)`."""
        end = FlowState(*(part[-1] for part in solution.ys))
        normal = -0.5 * end.z.square().sum(-1) - 0.5 * self.features * math.log(2.0 * math.pi)
        return normal - end.log_p

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw points from the density, shape `(count, features)`, in the number format of the field's parameters.

        Raises:
            ValueError: If `count` is not positive.
            SolveError: If the solve fails.
        """
        if count < 1:
            raise ValueError(f"`count` must be at least 1, got {count}.")
        like = next(self.field.parameters(), torch.empty(0)) if isinstance(self.field, nn.Module) else torch.empty(0)
        device = like.device if generator is None else generator.device
        z = torch.randn(count, self.features, generator=generator, dtype=like.dtype, device=device)
        problem = self.integrator.problem(self.field, z.to(like.device), self.t_span)
        return self.integrator.solve(problem, save_at=[self.t_span[1]], dense=False).ys[-1]

    def extra_repr(self) -> str:
        """Name dimension, interval and trace."""
        return f"features={self.features}, t_span={self.t_span}, estimator={self.estimator}"


@dataclass(frozen=True, slots=True)
class Flow:
    r"""The vector field $(f,\, -\operatorname{tr} \partial f / \partial z)$ of points and log-densities.

    Args:
        field: Called as `f(t, z)`.
        estimator: Of the trace; None for the exact one.
    """

    field: nn.Module
    estimator: Estimator | None

    def __call__(self, t: Tensor, state: FlowState) -> FlowState:
        """Return the rates of points and of log-densities."""
        z = state.z
        finite = z.detach().isfinite().all(-1)
        everywhere = bool(finite.all())
        # A trial step may have left the numbers; its sample is to be told so, the others are not to notice.
        points = z if everywhere else torch.where(finite.unsqueeze(-1), z, 0.0)
        result = divergence(lambda points: self.field(t, points), points, estimator=self.estimator)
        assert isinstance(result.operator, Tensor)
        if everywhere:
            return FlowState(result.value, -result.operator)
        rate = torch.where(finite.unsqueeze(-1), result.value, torch.nan)
        return FlowState(rate, torch.where(finite, -result.operator, torch.nan))


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Directions of another estimator, drawn once."""

    directions: Tensor
    source: Estimator

    @property
    def samples(self) -> int:
        return self.source.samples

    @property
    def generator(self) -> torch.Generator | None:
        return self.source.generator

    @property
    def per_sample(self) -> bool:
        return self.source.per_sample

    def draw(self, dimension: int, batch: tuple[int, ...], like: Tensor) -> Tensor:
        return self.directions

    def spread(self, dimension: int) -> float:
        return self.source.spread(dimension)


def _drawn(estimator: Estimator, x: Tensor) -> Estimator:
    batch = (len(x),) if estimator.per_sample else (1,)
    return _Drawn(estimator.draw(x.shape[-1], batch, x), estimator)
