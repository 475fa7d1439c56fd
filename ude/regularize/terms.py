"""What a sum of regularizers is made of."""

from __future__ import annotations

from torch import Tensor

from ude.regularize.regularizer import Regularizer, Sum, Weighted


def terms_of(regularizer: Regularizer) -> list[tuple[float | Tensor, Regularizer]]:
    """Return the costs that a regularizer adds up, each with its weight.

    Example:
        >>> from ude.regularize import ErrorEstimate, KineticEnergy
        >>> [weight for weight, _ in terms_of(2.0 * (ErrorEstimate() + 3.0 * KineticEnergy()))]
        [2.0, 6.0]
    """
    if isinstance(regularizer, Sum):
        return [pair for term in regularizer.terms for pair in terms_of(term)]
    if isinstance(regularizer, Weighted):
        return [(regularizer.weight * weight, term) for weight, term in terms_of(regularizer.cost)]
    return [(1.0, regularizer)]
