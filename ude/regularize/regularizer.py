"""What a regularizer is, and sums of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ude.ad.recording import is_transformed
from ude.problems import ODEProblem, Solution

Times = Tensor | Sequence[float] | None
"""What `solve` takes for `save_at`."""


class Regularizer(ABC):
    """A cost of a trajectory, small where the dynamics are easy to solve: a function of a `Solution`.

    Regularizers add up and are weighted by numbers: `1e2 * ErrorEstimate() + 0.1 * StiffnessEstimate()`.
    """

    def __call__(self, solution: Solution) -> Tensor:
        """Return the cost of a solution, shape `()`, on the autograd graph; the mean over the samples of a batch.

        Raises:
            TypeError: If it is no solution.
            ValueError: If the solve of a sample failed, the solution does not hold what the cost is made of, or the
                cost is not finite.
        """
        _check_ended(solution)
        return self.checked(self.measure(solution))

    def checked(self, cost: Tensor) -> Tensor:
        """Return a cost, raise `ValueError` if it is not finite."""
        if not is_transformed() and not bool(cost.detach().isfinite()):
            raise ValueError(
                f"The cost {self} of this solution is {float(cost.detach())}. Lower the order or the weight, or "
                "clip the gradients of the training."
            )
        return cost

    @abstractmethod
    def measure(self, solution: Solution) -> Tensor:
        """Return the cost, whether it is finite or not."""

    def prepare(self, problem: ODEProblem, save_at: Times = None) -> tuple[ODEProblem, Times]:
        """Return what to solve in the place of a problem, and when to save; most regularizers change neither."""
        return problem, save_at

    def restore(self, solution: Solution) -> Solution:
        """Return the solution of the problem as it was before `prepare`."""
        return solution

    def __add__(self, other: Regularizer) -> Regularizer:
        return Sum(*_terms(self), *_terms(other)) if isinstance(other, Regularizer) else NotImplemented

    def __radd__(self, other: object) -> Regularizer:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # where `sum` begins

    def __mul__(self, weight: float | Tensor) -> Regularizer:
        return Weighted(weight, self) if isinstance(weight, int | float | Tensor) else NotImplemented

    __rmul__ = __mul__


class Sum(Regularizer):
    """Several costs added.

    Args:
        terms: The costs.

    Example:
        >>> from ude.regularize import ErrorEstimate, StiffnessEstimate
        >>> 100.0 * ErrorEstimate() + StiffnessEstimate()
        100.0 * ErrorEstimate(scale='tolerance', reduce='mean', power=1) + StiffnessEstimate(reduce='max')
    """

    def __init__(self, *terms: Regularizer) -> None:
        if not terms:
            raise ValueError("A sum needs at least one regularizer.")
        self.terms = terms

    def measure(self, solution: Solution) -> Tensor:
        """Return the sum of the costs."""
        costs = []
        for i, term in enumerate(self.terms):
            without_others = solution
            for other in (*self.terms[:i], *self.terms[i + 1 :]):
                without_others = other.restore(without_others)
            costs.append(term.measure(without_others))
        return sum(costs[1:], costs[0])

    def prepare(self, problem: ODEProblem, save_at: Times = None) -> tuple[ODEProblem, Times]:
        """Let every term change the problem in turn."""
        for term in self.terms:
            problem, save_at = term.prepare(problem, save_at)
        return problem, save_at

    def restore(self, solution: Solution) -> Solution:
        """Take back what the terms changed, the last one first."""
        for term in reversed(self.terms):
            solution = term.restore(solution)
        return solution

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms))


@dataclass(frozen=True, slots=True)
class Weighted(Regularizer):
    """A cost times a number.

    Args:
        weight: The number.
        cost: What it multiplies.
    """

    weight: float | Tensor
    cost: Regularizer

    def measure(self, solution: Solution) -> Tensor:
        """Return the product."""
        return self.weight * self.cost.measure(solution)

    def prepare(self, problem: ODEProblem, save_at: Times = None) -> tuple[ODEProblem, Times]:
        """Let the cost change the problem."""
        return self.cost.prepare(problem, save_at)

    def restore(self, solution: Solution) -> Solution:
        """Let the cost take that back."""
        return self.cost.restore(solution)

    def __repr__(self) -> str:
        inner = f"({self.cost!r})" if isinstance(self.cost, Sum) else repr(self.cost)
        return f"{self.weight} * {inner}"


def _terms(regularizer: Regularizer) -> tuple[Regularizer, ...]:
    return regularizer.terms if isinstance(regularizer, Sum) else (regularizer,)


def _check_ended(solution: Solution) -> None:
    """Raise unless every sample of a solution came to its end."""
    if not isinstance(solution, Solution):
        raise TypeError(f"A cost is that of the `Solution` which `ude.solve` returned, got {type(solution).__name__}.")
    if is_transformed() or bool(solution.success.all()):
        return
    failed = (~solution.success).nonzero().flatten().tolist()
    which = f"Samples {failed[:8]} of this solution" if solution.status.ndim else "This solution"
    raise ValueError(
        f"{which} failed, and half a trajectory has no cost. Solve with `throw=True` to be told why, leave such "
        "samples out and solve again, or skip this batch."
    )


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise unless an argument is one of a few words."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")
