"""What a cost that is attached to another library's solve gives."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from ude.regularize.energy import TrajectoryIntegral
from ude.regularize.regularizer import Regularizer
from ude.regularize.terms import terms_of


class Attached(ABC):
    """The cost of the solves made while it was attached."""

    @abstractmethod
    def value(self) -> Tensor:
        """Return the cost, shape `()`, on the autograd graph; the mean over the solves.

        Raises:
            ValueError: If there was no solve, if it was not the one that was announced, or the cost is not finite.
        """

    @property
    @abstractmethod
    def nfe(self) -> int:
        """Evaluations of the vector field that the solves made, without backward passes and the cost itself."""

    @property
    def accepted(self) -> int:
        """Steps that were taken; zero if the library does not tell."""
        return 0

    @property
    def rejected(self) -> int:
        """Steps that were tried and thrown away; zero if the library does not tell."""
        return 0


def check_integral(cost: TrajectoryIntegral) -> None:
    """Raise `ValueError` if an integral is to choose its nodes itself."""
    if not isinstance(cost.nodes, str) or cost.nodes != "random" or cost.samples is not None:
        raise ValueError(
            f"`attach` draws the nodes of {cost} among what the solver tells: leave its `nodes` and `samples` out, and "
            "give `samples` to `attach`. Saved states are taken by `cost.along(f, ts, ys)`."
        )


def costs_of(cost: Regularizer, kinds: tuple[type[Regularizer], ...], hint: str) -> list[Regularizer]:
    """Return the costs in a sum, having checked that each is of these kinds.

    Raises:
        ValueError: If one is not.
        TypeError: If it is no regularizer at all.
    """
    if not isinstance(cost, Regularizer):
        raise TypeError(
            f"`cost` must be one of the costs in `ude.regularize`, such as `ErrorEstimate()`, got {cost!r}."
        )
    costs = [term for _, term in terms_of(cost)]
    for term in costs:
        if not isinstance(term, kinds):
            names = ", ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"Expected {names} or sums of these, got {term!r}. {hint}")
        if isinstance(term, TrajectoryIntegral):
            check_integral(term)
    return costs
