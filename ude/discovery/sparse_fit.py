"""What sparse regression returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class SparseFit:
    """Sparse coefficients.

    Args:
        coefficients: Shape `(*path, *batch, targets, features)`; zero outside the support.
        support: Which coefficients may differ from zero, bool, same shape.
        converged: Whether the iteration ended before `max_iter`, bool, shape `(*path, *batch, targets)`.
    """

    coefficients: Tensor
    support: Tensor
    converged: Tensor
