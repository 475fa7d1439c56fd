"""States of a solve that was not recorded, with a gradient from a continuous adjoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ude import ad
from ude.problems import Solution
from ude.solve.continuous.adjoint import Backsolve, ContinuousAdjoint, Forward, Gauss, Interpolating
from ude.solve.continuous.backwards import Cotangents, by_quadrature, jointly
from ude.solve.continuous.forwards import sensitivities
from ude.solve.continuous.pullback import Pullback, find_parameters
from ude.solve.engines import Task
from ude.solve.integrate import Given


def differentiable_states(
    adjoint: ContinuousAdjoint,
    task: Task,
    given: Given,
    integrate: Callable[[Given], Solution],
    solve: Callable[..., Solution],
) -> Solution:
    """Solve without recording, and give the saved states the gradient of a continuous adjoint.

    Args:
        adjoint: Which one.
        task: The solve.
        given: What the states are to be differentiable by, besides the parameters.
        integrate: Solves without recording.
        solve: The door, for equations of the gradient's own.

    Raises:
        ValueError: If this adjoint cannot give a gradient that is asked for.
    """
    span = given.span.detach()
    with torch.no_grad():
        solution = integrate(Given(given.y0.detach(), span, None if given.times is None else given.times.detach()))
    if not torch.is_grad_enabled() or not bool(torch.atleast_1d(solution.success).all()):
        return solution
    parameters = find_parameters(task.vector_field, task.p, task.field, span.t0, given.y0)
    _check(task, given)
    times = given.times
    if times is None:
        times = solution.ts if task.layout.batched else solution.ts.unsqueeze(-1)
    inputs = [x for x in (given.y0, given.span.t0, times, *parameters) if x.requires_grad]
    if not inputs:
        return solution
    ys = task.layout.flatten(solution.ys, lead=1)
    if isinstance(adjoint, Forward):
        if given.span.t0.requires_grad or times.requires_grad:
            raise ValueError("`Forward()` has no gradient by times. Use another adjoint, or times that require none.")
        pullback = sensitivities(task, given.y0, (span.t0, span.t1), times, parameters, solve)
    else:
        pullback = _Backwards(adjoint, task, solution, given, times, parameters, solve)
    # The continuous extension carries no gradient, which would be lost without a word.
    return replace(solution, ys=task.layout.unflatten(ad.attach(ys, inputs, pullback)), interpolant=None)


def _check(task: Task, given: Given) -> None:
    if task.handler is not None:
        raise ValueError(
            "A continuous adjoint does not know what events do to the gradient. Use `adjoint=Direct()` or "
            "`Checkpointed()` with `events`."
        )
    if given.y0.is_complex():
        raise ValueError(f"A continuous adjoint needs real states, got {given.y0.dtype}. Use `adjoint=Direct()`.")
    if given.times is None and given.span.t1.requires_grad:
        raise ValueError("A continuous adjoint needs `t1` among the times of `save_at` for a gradient by it.")


class _Backwards:
    """The pullback of an adjoint equation: from the cotangents of saved states to those of all inputs."""

    def __init__(
        self,
        adjoint: Backsolve | Interpolating | Gauss,
        task: Task,
        solution: Solution,
        given: Given,
        times: Tensor,
        parameters: Sequence[Tensor],
        solve: Callable[..., Solution],
    ) -> None:
        self.adjoint, self.task, self.solution, self.solve = adjoint, task, solution, solve
        self.given, self.times, self.parameters = given, times, tuple(parameters)
        if not isinstance(adjoint, Gauss):
            _check_shared(adjoint, times, given.span.t0)

    def __call__(self, cotangent: Tensor) -> list[Tensor]:
        given, field = self.given, self.task.field
        pullback = Pullback(field, self.parameters)
        # The equation is linear: a largest cotangent of 1 lets the tolerances mean what they mean for states.
        scale = cotangent.abs().max().clamp(min=torch.finfo(cotangent.dtype).tiny)
        cotangents = Cotangents.of(self.times.detach(), cotangent / scale, given.span.t0.detach())
        if isinstance(self.adjoint, Gauss):
            a0, of_parameters = by_quadrature(self.adjoint, self.task, self.solution, cotangents, pullback, self.solve)
        else:
            a0, of_parameters = jointly(
                self.adjoint, self.task, self.solution, cotangents, given.y0.detach(), pullback, self.solve
            )
        results: list[Tensor] = []
        if given.y0.requires_grad:
            results.append((a0 + cotangents.at_start) * scale)
        if given.span.t0.requires_grad:
            results.append(-(a0 * field(given.span.t0.detach(), given.y0.detach())).sum(-1) * scale)
        if self.times.requires_grad:
            ys = self.task.layout.flatten(self.solution.ys, lead=1)
            rates = [field(t, y) for t, y in zip(self.times.detach(), ys, strict=True)]
            results.append((cotangent * torch.stack(rates)).sum(-1))
        return [*results, *(g * scale for g in of_parameters)]


def _check_shared(adjoint: ContinuousAdjoint, times: Tensor, t0: Tensor) -> None:
    if not bool((times == times[:, :1]).all() & (t0 == t0[0]).all()):
        raise ValueError(
            f"`{type(adjoint).__name__}` goes back with one step for all samples, which must share `t0` and `save_at`. "
            "Use `Gauss()`, `Direct()` or `Checkpointed()`, or name common times in `save_at`."
        )
