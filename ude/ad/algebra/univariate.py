"""Ordinary Taylor mode."""

from __future__ import annotations

from fractions import Fraction

from torch import Tensor

from ude.ad.algebra.base import Algebra, StructureConstant
from ude.ad.algebra.expansion import Expansion, Recurrence
from ude.ad.series import Rule


class Univariate(Algebra):
    r"""Power series in one variable, $\mathbb{R}[\varepsilon] / \varepsilon^{K+1}$, with normalised coefficients.

    Slot k of a jet is $c_k = x^{(k)} / k!$. Functions are applied by recurrences of $O(K^2)$ products, which keep their
    accuracy at every order.

    Args:
        order: The highest order $K \geq 1$.

    Raises:
        ValueError: If the order is less than 1.

    Example:
        >>> Univariate(3)
        Univariate(3): order 3, 4 slots (1 + 1 + 1 + 1)

    Reference: A. Griewank and A. Walther, Evaluating Derivatives, 2nd edition, 2008, chapter 13.
    """

    def __init__(self, order: int) -> None:
        check_order(order)
        structure = [
            StructureConstant(i + j, i, j, Fraction(1)) for i in range(1, order) for j in range(1, order + 1 - i)
        ]
        labels = [f"x^({k})/{k}!" for k in range(order + 1)]
        super().__init__(order, [1] * order, labels, structure)

    def __repr__(self) -> str:
        return f"Univariate({self.order}): {self._summary()}"

    def _key(self) -> object:
        return self.order

    def expansion(self, rule: Rule, value: Tensor, slots: Tensor) -> Expansion:
        """Return a function around a jet, by the recurrence of its rule."""
        return Recurrence(self, rule, value, slots)


def check_order(order: int) -> None:
    """Raise unless the order is an integer of at least 1."""
    if not isinstance(order, int) or isinstance(order, bool) or order < 1:
        raise ValueError(f"Expected an order of at least 1, an integer, got {order!r}.")
