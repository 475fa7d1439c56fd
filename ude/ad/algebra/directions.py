"""Collapsed Taylor mode along several directions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from torch import Tensor

from ude.ad.algebra.base import Algebra, StructureConstant
from ude.ad.algebra.expansion import Expansion, SecondOrder
from ude.ad.algebra.univariate import check_order
from ude.ad.recording import is_recorded
from ude.ad.series import Rule


class Directions(Algebra):
    r"""Power series along R directions through one point; of the highest order only a weighted sum is kept.

    Slots of degree $k < K$ are the coefficients $c_{k,r}$ of each direction; the one slot of degree $K$ is
    $\sum_r w_r\, c_{K,r}$. It may be summed before it is propagated because it enters every rule linearly and with a
    factor that all directions share (collapsed Taylor mode). `Symbol` needs fewer slots from order 3 on.

    Args:
        count: Number of directions R.
        order: The highest order $K \geq 1$.
        weights: $w_r$, one per direction; 1 if left out. May be negative.
        collapsed: Keep only the sum. If False, every direction keeps its highest coefficient (standard Taylor mode) and
            the weights are not used.

    Raises:
        ValueError: If count or order is less than 1, or the number of weights is not `count`.

    Example:
        >>> Directions(5, order=2)
        Directions(5, order=2): order 2, 7 slots (1 + 5 + 1)

    Reference: F. Dangel, T. Siebert, M. Zeinhofer, A. Walther, Collapsing Taylor mode automatic differentiation, 2025.
    """

    def __init__(
        self, count: int, order: int, weights: Sequence[float] | None = None, *, collapsed: bool = True
    ) -> None:
        check_order(order)
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"Expected at least 1 direction, an integer, got {count!r}.")
        chosen = [1.0] * count if weights is None else [float(w) for w in weights]
        if len(chosen) != count:
            raise ValueError(f"Expected one weight for each of the {count} directions, got {len(chosen)}.")
        if not all(math.isfinite(weight) for weight in chosen):
            raise ValueError(f"Expected finite weights, got {chosen}.")
        self.count, self.weights, self.collapsed = count, tuple(chosen), collapsed
        self._is_uniform = set(chosen) == {1.0}
        sizes = [count] * (order - 1) + [1 if collapsed else count]
        labels = ["x"] + [f"c_{k},{r}" for k in range(1, order) for r in range(count)]
        labels += [f"sum_r w_r c_{order},r"] if collapsed else [f"c_{order},{r}" for r in range(count)]
        super().__init__(order, sizes, labels, list(self._products(order)))

    def _products(self, order: int) -> Iterator[StructureConstant]:
        def slot(degree: int, r: int) -> int:
            return (degree - 1) * self.count + (0 if self.collapsed and degree == order else r) + 1

        for i in range(1, order):
            for j in range(1, order + 1 - i):
                summed = self.collapsed and i + j == order
                for r in range(self.count):
                    weight = Fraction(self.weights[r]) if summed else Fraction(1)
                    if not weight:
                        continue
                    yield StructureConstant(slot(i + j, r), slot(i, r), slot(j, r), weight)

    def __repr__(self) -> str:
        weights = "" if self._is_uniform else ", weighted"
        weights += "" if self.collapsed else ", collapsed=False"
        return f"Directions({self.count}, order={self.order}{weights}): {self._summary()}"

    def expansion(self, rule: Rule, value: Tensor, slots: Tensor) -> Expansion:
        """Return a function around a jet; at order two, where nobody looks on, in the fewest operations."""
        if self.order != 2 or not self.collapsed or slots.is_complex() or is_recorded():
            return Expansion(self, rule, value, slots)
        weights = None
        if not self._is_uniform:
            weights = slots.new_tensor(self.weights).reshape(-1, *(1,) * value.ndim)
        return SecondOrder(self, rule, value, slots, weights)

    def _key(self) -> object:
        return self.count, self.order, self.weights, self.collapsed
