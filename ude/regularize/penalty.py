"""A cost in a loss: its weight now, and what was measured with it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Penalty:
    """The weight of a cost, which changes with the step, and the figures of the solves since they were last asked for.

    It is what a training loop and a loss have in common: the loop, or one of the callbacks in
    `ude.regularize.callbacks`, sets the step; the loss multiplies its cost.

    Args:
        weight: A number, or a function from the number of the step to one, such as `Anneal`.

    Example:
        >>> import torch
        >>> from ude.regularize import Anneal
        >>> penalty = Penalty(Anneal("exp", 1e3, 1e2, steps=300))
        >>> penalty.set_step(150)
        >>> penalty(torch.tensor(0.5), nfe=122, accepted=20, rejected=0)
        tensor(158.1139)
        >>> penalty.figures()
        {'weight': 316.22..., 'cost': 0.5, 'nfe': 122.0, 'accepted': 20.0, 'rejected': 0.0}
    """

    def __init__(self, weight: float | Callable[[int], float]) -> None:
        if not (isinstance(weight, int | float) or callable(weight)):
            raise TypeError(f"`weight` must be a number or a function of the step, such as `Anneal`, got {weight!r}.")
        self._schedule = weight
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Take the weight of a step."""
        self.weight = float(self._schedule(step)) if callable(self._schedule) else float(self._schedule)

    def __call__(
        self,
        cost: Tensor,
        *,
        nfe: float | Tensor | None = None,
        accepted: float | Tensor | None = None,
        rejected: float | Tensor | None = None,
    ) -> Tensor:
        """Return the weight times a cost, to be added to the loss.

        Args:
            cost: What a regularizer returned, `info.cost` of `ude.compat.odeint`, or `value()` of what was attached.
            nfe: Evaluations of the vector field; of a batch, the mean is taken.
            accepted: Steps taken, likewise.
            rejected: Steps thrown away, likewise.
        """
        for name, value in {"cost": cost, "nfe": nfe, "accepted": accepted, "rejected": rejected}.items():
            if value is not None:
                self._add(name, torch.as_tensor(value).detach().double().mean())
        return self.weight * cost

    def figures(self) -> dict[str, float]:
        """Return the weight, and the means of what was measured since the last time, which are then forgotten."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return {"weight": self.weight, **means}

    def _add(self, name: str, value: Tensor) -> None:
        # Kept as tensors: a device need not be waited for before somebody reads them.
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts[name] = self._counts.get(name, 0) + 1
