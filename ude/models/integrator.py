"""How a model solves its equation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ude._typing import State, VectorField
from ude.methods import Tsit5
from ude.methods.method import Method
from ude.problems import ODEProblem, SDEProblem, Solution
from ude.solve import Direct, solve
from ude.solve.adjoints import Adjoint
from ude.solve.auto import Auto
from ude.solve.backend import Backend
from ude.solve.continuous import ContinuousAdjoint
from ude.solve.controllers import Controller
from ude.solve.engines import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Integrator:
    """The options of `ude.solve` that belong to a model rather than to one call of it.

    Args:
        method: Makes the steps. An explicit one by default, whatever the state: a model that is trained to be easy to
            solve should not change its method on the way.
        rtol: Relative tolerance.
        atol: Absolute tolerance, in the unit of the state.
        dt: Length of the first step, chosen automatically by default; with constant steps, of every step.
        controller: Chooses the step lengths, as in `ude.solve`.
        adjoint: Where the gradient comes from, as in `ude.solve`. Costs of the steps need one that goes through them:
            `Direct()` or `Checkpointed()`.
        engine: What runs the steps, as in `ude.solve`.
        batched: False: a mini-batch is one state with one norm of the error, so that all samples share every step, as
            in torchdiffeq and in the papers on regularization; the step suits the batch on average. True: the first
            axis is a batch of samples, each with its own error, steps and status, whose results do not depend on the
            others; the field then gets `t` of shape `(batch, 1, ..., 1)`.
        max_steps: Most attempts per solve, or per sample.

    Example:
        >>> import torch
        >>> integrator = Integrator(rtol=1e-8, atol=1e-8)
        >>> problem = integrator.problem(lambda t, y: -y, torch.ones(1, dtype=torch.float64), (0.0, 1.0))
        >>> integrator.solve(problem, save_at=[1.0]).ys
        tensor([[0.3679]], dtype=torch.float64)
    """

    method: Method | Backend = Tsit5()  # noqa: RUF009
    rtol: float = 1e-5
    atol: float = 1e-7
    dt: float | None = None
    controller: Controller | None = None
    adjoint: Adjoint | ContinuousAdjoint = Direct()  # noqa: RUF009
    engine: str | Engine | Auto = "eager"
    batched: bool = False
    max_steps: int = 100_000

    def problem(self, field: VectorField, y0: State, t_span: tuple[float | Tensor, float | Tensor]) -> ODEProblem:
        """Return the initial value problem of a field called as `f(t, y)`, batched or not as the options say."""
        return ODEProblem(field, y0, t_span, batched=self.batched)

    def solve(
        self,
        problem: ODEProblem | SDEProblem,
        *,
        save_at: Tensor | Sequence[float] | None = None,
        dense: bool = True,
    ) -> Solution:
        """Solve a problem.

        Args:
            problem: From `problem`, perhaps changed by the `prepare` of a regularizer, or from that of a `NeuralSDE`.
            save_at: Times of the states to return; by default the start and the end of every step.
            dense: Keep the continuous solution.

        Raises:
            ValueError: If an option cannot be used.
            SolveError: If the solve fails.
        """
        return solve(
            problem,
            self.method,
            save_at=save_at,
            rtol=self.rtol,
            atol=self.atol,
            dt=self.dt,
            controller=self.controller,
            engine=self.engine,
            adjoint=self.adjoint,
            dense=dense,
            max_steps=self.max_steps,
        )
