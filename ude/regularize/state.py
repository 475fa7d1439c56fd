"""The integral of a cost as one more state of the problem: what costs elsewhere are compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ude._typing import FlatField, State, VectorField
from ude.problems import ODEProblem, Solution
from ude.solve.flatten import Layout


class Integral(Protocol):
    """A cost that has an integrand."""

    def integrand(self, f: FlatField, t: Tensor, y: Tensor) -> Tensor:
        """Return the integrand at times `(batch,)` and states `(batch, state)`, one number per sample."""
        ...


@dataclass(frozen=True, slots=True)
class Augmented:
    r"""The vector field of $(y, R)$, with $\dot R$ the integrand.

    Args:
        problem: The problem before.
        cost: What is integrated.
        layout: Layout of $y$.
    """

    problem: ODEProblem
    cost: Integral
    layout: Layout

    def __call__(self, t: Tensor, state: tuple[State, Tensor], *p: Any) -> tuple[State, Tensor]:
        """Return the derivatives of both."""
        y, energy = state
        flat = self.layout.flatten(y)
        times = t.reshape(-1).expand(len(flat))
        rate = self.cost.integrand(self.layout.bind(self.problem.vector_field, self.problem.p), times, flat)
        return self.problem.vector_field(t, y, *p), rate.reshape(energy.shape)


def augmented(problem: ODEProblem, cost: Integral) -> ODEProblem:
    """Return a problem with the integral of a cost as a second state, which starts at zero.

    Raises:
        ValueError: If the state is complex, which the integral is not, or holds an integral already.
    """
    if isinstance(problem.vector_field, Augmented):
        raise ValueError("One cost at a time can be a state. Give the others `nodes='random'`.")
    layout = Layout.of(problem.y0, batched=problem.batched)
    flat = layout.flatten(problem.y0)
    if flat.is_complex():
        raise ValueError("`nodes='state'` needs a real state. Use `nodes='random'`, or real and imaginary parts.")
    field: VectorField = Augmented(problem, cost, layout)
    energy = torch.zeros_like(flat[:, 0]) if problem.batched else torch.zeros_like(flat[0, 0])
    return replace(problem, vector_field=field, y0=(problem.y0, energy.detach()), jacobian=None)


def energy_of(solution: Solution, cost: Integral) -> Tensor:
    """Return the integral at the end of a solution, mean over the samples."""
    _field_of(solution, cost)
    return solution.ys[1][-1].abs().mean()  # pyright: ignore[reportArgumentType, reportCallIssue, reportIndexIssue]


def without_energy(solution: Solution, cost: Integral) -> Solution:
    """Return the solution of the problem before."""
    field, interpolant = _field_of(solution, cost), solution.interpolant
    return replace(
        solution,
        ys=solution.ys[0],  # pyright: ignore[reportArgumentType, reportCallIssue, reportIndexIssue]
        problem=field.problem,
        interpolant=None if interpolant is None else lambda t: interpolant(t)[0],  # pyright: ignore
    )


def _field_of(solution: Solution, cost: Integral) -> Augmented:
    field = None if solution.problem is None else solution.problem.vector_field
    if not isinstance(field, Augmented) or field.cost is not cost:
        raise ValueError(
            "`nodes='state'` needs a solve of the problem with the cost in its state: "
            "`problem, save_at = cost.prepare(problem, save_at)` before it. Or use `nodes='random'`."
        )
    return field
