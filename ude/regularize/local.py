"""Costs of a few single steps: they work with every adjoint, and cost the same however many steps the solve takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude.methods import BDF, AutoSwitch
from ude.methods.method import Method, Tolerances
from ude.problems import Solution
from ude.regularize.nodes import Path, draw, uniform
from ude.regularize.regularizer import Regularizer, check_choice
from ude.regularize.single_step import SingleStep, repeat_step
from ude.regularize.steps import ErrorEstimate, StiffnessEstimate
from ude.solve.flatten import broadcast_tolerance

Place: TypeAlias = Literal["random", "accepted"]


@dataclass(frozen=True, slots=True)
class Local(Regularizer):
    r"""The cost of a few single steps, repeated on the autograd graph from constant states: $E^p\,|\Delta t|$, or $S$.

    No gradient passes through the solve, so that any adjoint will do, and the cost does not grow with the number of
    steps: the evaluations of one step for each sample drawn, and one more for its first stage.

    Args:
        cost: `ErrorEstimate` or `StiffnessEstimate`; its `reduce` is over the steps drawn.
        where: `"accepted"`: steps of the solve, each as likely as the other. `"random"`: from times drawn uniformly,
            with the length of the step that covers them ("unbiased"). Both need the continuous solution.
        samples: Steps to draw. Estimates from one are unstable.
        generator: Source of randomness; torch's own if not given.

    Raises:
        ValueError: If an argument cannot be used; when called, if the solve did not keep what it takes.

    Reference:
        Pal, Edelman & Rackauckas (2023), Locally regularized neural differential equations: some black boxes were meant
        to remain closed!, ICML. The published weights are 2.5 (images), from 100 to 10 (PhysioNet) for the error.
    """

    cost: ErrorEstimate | StiffnessEstimate = ErrorEstimate()  # noqa: RUF009
    where: Place = "accepted"
    samples: int = 4
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.cost, ErrorEstimate | StiffnessEstimate):
            raise ValueError(
                f"`cost` must be an `ErrorEstimate` or a `StiffnessEstimate`, got {self.cost!r}. Integrals such as "
                "`TaylorEnergy` are local with `detach=True`."
            )
        check_choice("where", self.where, ("random", "accepted"))
        if not isinstance(self.samples, int) or self.samples < 1:
            raise ValueError(f"`samples` must be an integer of at least 1, got {self.samples!r}.")

    def measure(self, solution: Solution) -> Tensor:
        """Return the cost."""
        self.cost.check_method(solution)
        path, method = Path.of(solution), solution.method
        if isinstance(method, AutoSwitch | BDF):
            raise ValueError(
                f"A single step of {method} depends on the steps before it and cannot be made again. Take the cost of "
                "the whole solve instead of `Local`, or a method of single steps such as `Tsit5()` or `Rodas5P()`."
            )
        tolerances = _tolerances(path)
        assert isinstance(method, Method)  # backends have no estimates
        steps = [
            repeat_step(path.field, method, tolerances, t, dt, y.detach())[0]
            for t, dt, y in zip(*self._drawn(path), strict=True)
        ]
        return self.of_steps(steps)

    def of_steps(self, steps: list[SingleStep]) -> Tensor:
        """Return the cost of steps that were repeated."""
        values = torch.stack([self.cost.of_single(step) for step in steps])
        reduce = self.cost.reduce
        reduced = values.mean(0) if reduce == "mean" else values.sum(0) if reduce == "sum" else values.amax(0)
        return reduced.mean()

    def _drawn(self, path: Path) -> tuple[Tensor, Tensor, Tensor]:
        """Return starts, lengths and states of the steps drawn: `(samples, batch)`, and `(samples, batch, state)`."""
        solution = path.solution
        rows = (solution.steps.t, solution.steps.dt.detach(), solution.steps.accepted)
        t, dt, accepted = (x if x.ndim == 2 else x.unsqueeze(-1) for x in rows)
        if not bool(accepted.any(0).all()):
            raise ValueError("A sample of this solution has no accepted step to repeat. Solve over a longer interval.")
        chances = accepted.to(dt.dtype) if self.where == "accepted" else torch.where(accepted, dt.abs(), 0.0)
        index = draw(chances, self.samples, self.generator)
        start, length = t.gather(0, index), dt.gather(0, index)
        if self.where == "random":
            start = start + length * uniform(start.shape, start, self.generator)
        return start, length, path.at(start, self.where)


def _tolerances(path: Path) -> Tolerances:
    """Return the tolerances of the solve."""
    solution, problem = path.solution, path.solution.problem
    assert problem is not None  # a path has one
    like = pytree.tree_leaves(problem.y0)[0].real
    rtol = broadcast_tolerance("rtol", solution.rtol, path.layout, problem.y0, like)
    return Tolerances(rtol, broadcast_tolerance("atol", solution.atol, path.layout, problem.y0, like))
