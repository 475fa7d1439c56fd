"""The tensor product of two algebras: derivatives of derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from ude.ad.algebra.base import Algebra, StructureConstant


class Product(Algebra):
    r"""The tensor product $A \otimes B$, whose slots are pairs of a slot of A and a slot of B.

    `Product(Symbol(p), Univariate(K))` carries the first K derivatives in time of an operator p along a curve.

    Args:
        first: The algebra A.
        second: The algebra B.

    Example:
        >>> from ude.ad import Symbol, Univariate
        >>> Product(Symbol({(2, 0): 1, (0, 2): 1}), Univariate(2))
        Product(Symbol(d0^2 + d1^2), Univariate(2)): order 4, 12 slots (1 + 3 + 4 + 3 + 1)
    """

    def __init__(self, first: Algebra, second: Algebra) -> None:
        self.first, self.second = first, second
        order = first.order + second.order
        pairs = sorted(
            ((a, b) for a in range(first.dim) for b in range(second.dim)),
            key=lambda pair: (first.degrees[pair[0]] + second.degrees[pair[1]], pair),
        )
        self._numbers = {pair: number for number, pair in enumerate(pairs)}
        degrees = [first.degrees[a] + second.degrees[b] for a, b in pairs]
        sizes = [degrees.count(degree) for degree in range(1, order + 1)]
        labels = [f"{first.labels[a]} (x) {second.labels[b]}" for a, b in pairs]
        super().__init__(order, sizes, labels, list(self._products()))

    def __repr__(self) -> str:
        first, second = (repr(algebra).split(":")[0] for algebra in (self.first, self.second))
        return f"Product({first}, {second}): {self._summary()}"

    def _key(self) -> object:
        return self.first, self.second

    def number(self, first: int, second: int) -> int:
        """Return the number of the slot that belongs to a slot of A and a slot of B, 0 being their values."""
        return self._numbers[first, second]

    def _products(self) -> Iterator[StructureConstant]:
        for c, a, b, scale in _with_unit(self.first):
            for z, x, y, other in _with_unit(self.second):
                out, left, right = self._numbers[c, z], self._numbers[a, x], self._numbers[b, y]
                if left and right:
                    yield StructureConstant(out, left, right, scale * other)


def _with_unit(algebra: Algebra) -> Iterator[tuple[int, int, int, Fraction]]:
    """Yield all structure constants, those with the unit among them."""
    yield from ((number, 0, number, Fraction(1)) for number in range(algebra.dim))
    yield from ((number, number, 0, Fraction(1)) for number in range(1, algebra.dim))
    yield from algebra.structure
