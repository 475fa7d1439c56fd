"""What every algebra can do: multiply jets, put them through a function, and the adjoint of that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ude.ad.algebra.bilinear import BlockProduct, Multiply, Term
from ude.ad.algebra.blocks import Blocks, add_product, common_shape, plus, value_of
from ude.ad.algebra.expansion import Expansion, Unrolled
from ude.ad.series import Rule


class StructureConstant(NamedTuple):
    r"""A product of two nilpotent slots, $e_a e_b = \dots + C_{cab}\, e_c$, slots numbered from 1."""

    out: int
    left: int
    right: int
    scale: Fraction


class Algebra(ABC):
    r"""A commutative algebra $\mathbb{R} \oplus \mathfrak{m}$, $\mathfrak{m}^{K+1} = 0$, by its structure constants.

    A jet with values in it is a value (the slot of the unit) and `dim - 1` further slots, ordered by degree. Slots of
    degree i and j multiply into slots of degree at least i + j, and products of degree above the order vanish.

    Args:
        order: The order $K$.
        sizes: Number of slots of each degree from 1 to `order`.
        labels: What each slot holds, in words or as a derivative.
        structure: The non-zero structure constants among slots of degree 1 and more.
    """

    order: int
    sizes: tuple[int, ...]
    labels: tuple[str, ...]
    structure: tuple[StructureConstant, ...]
    degrees: tuple[int, ...]
    """Degree of each slot, the value among them."""

    def __init__(
        self, order: int, sizes: Sequence[int], labels: Sequence[str], structure: Sequence[StructureConstant]
    ) -> None:
        self.order = order
        self.sizes = tuple(sizes)
        self.degrees = (0, *(degree for degree, size in enumerate(self.sizes, 1) for _ in range(size)))
        self.prefixes = (0, *accumulate(self.sizes))  # how many slots there are up to each degree
        self.labels = tuple(labels)
        self.structure = tuple(structure)
        products = [(term.out, term.left, term.right, term.scale) for term in self.structure]
        self.products = self._compiled(products)
        folded = [(c, a, b, x if a == b else 2 * x) for c, a, b, x in products if a <= b]
        self.squares = self._compiled(folded)
        self._transposes: Plans | None = None

    @property
    def transposes(self) -> Plans:
        """Products of a jet with a cotangent, by degrees of result, jet and cotangent; made when first asked for."""
        if self._transposes is None:
            self._transposes = self._compiled([(b, a, c, scale) for c, a, b, scale in self.structure])
        return self._transposes

    @property
    def dim(self) -> int:
        """Number of slots, the value among them."""
        return 1 + sum(self.sizes)

    @property
    def slots_per_degree(self) -> tuple[int, ...]:
        """Number of slots of degree 0, 1, ..., order."""
        return (1, *self.sizes)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._key() == other._key()  # pyright: ignore[reportAttributeAccessIssue]

    def __hash__(self) -> int:
        return hash((type(self), self._key()))

    def _summary(self) -> str:
        sizes = " + ".join(map(str, self.slots_per_degree))
        return f"order {self.order}, {self.dim} slots ({sizes})"

    @abstractmethod
    def _key(self) -> Any:
        """What makes two algebras of the same class equal."""

    # Slots and blocks

    def support(self, slots: Tensor | None) -> int:
        """Return the highest degree that these leading slots reach."""
        count, degree = 0 if slots is None else slots.shape[0], 0
        while count > 0:
            count -= self.sizes[degree]
            degree += 1
        return degree

    def blocks(self, value: Tensor | None, slots: Tensor | None) -> Blocks:
        """Return the value and the slots of each degree."""
        degree = self.support(slots)
        parts = () if slots is None else slots.split(self.sizes[:degree])
        return [value, *parts, *[None] * (self.order - degree)]

    def join(self, blocks: Blocks) -> Tensor | None:
        """Return the blocks of degree 1 and more as one tensor of slots, leaving off zeros at the end."""
        present = [block for block in blocks[1:] if block is not None]
        if not present:
            return None
        top = max(degree for degree, block in enumerate(blocks) if degree and block is not None)
        shape = common_shape([block.shape[1:] for block in present])
        parts = []
        for degree in range(1, top + 1):
            block = blocks[degree]
            if block is None:
                parts.append(present[0].new_zeros((self.sizes[degree - 1], *shape)))
            else:
                parts.append(block.expand(-1, *shape))
        return torch.cat(parts)

    # Arithmetic

    def multiply(self, x: Blocks, y: Blocks, product: Multiply | None = None) -> Blocks:
        """Return the product of two jets; `product` multiplies single slots, elementwise if left out.

        `product` is called with a leading slot axis of length 1 or of the same length on both sides.
        """
        times = product or torch.mul
        result: Blocks = [None] * (self.order + 1)
        for degree in range(self.order + 1):
            left, right = x[degree], y[degree]
            if degree == 0:
                result[0] = times(value_of(x).unsqueeze(0), value_of(y).unsqueeze(0)).squeeze(0)
                continue
            if right is not None:
                result[degree] = times(value_of(x).unsqueeze(0), right)
            if left is not None:
                result[degree] = plus(result[degree], times(left, value_of(y).unsqueeze(0)))
        for (out, i, j), plan in self.products.items():
            left, right = x[i], y[j]
            if left is not None and right is not None:
                result[out] = add_product(result[out], plan, left, right, product)
        return result

    def expansion(self, rule: Rule, value: Tensor, slots: Tensor) -> Expansion:
        """Return a function around a jet, ready to give its image and its adjoint."""
        if torch.compiler.is_compiling() and self.order > 2 and self.dim <= _UNROLLED:
            return Unrolled(self, rule, value, slots)
        return Expansion(self, rule, value, slots)

    def _compiled(self, constants: Sequence[tuple[int, int, int, Fraction]]) -> Plans:
        """Compile products of slots, given as numbers of result, left and right and a factor, by degrees."""
        starts = [0, *(1 + count for count in self.prefixes)]
        terms: dict[Degrees, list[Term]] = {}
        for *numbers, scale in constants:
            degrees = [self.degrees[number] for number in numbers]
            out, left, right = (n - starts[degree] for n, degree in zip(numbers, degrees, strict=True))
            terms.setdefault((degrees[0], degrees[1], degrees[2]), []).append(Term(out, left, right, scale))
        return {
            key: BlockProduct.of(group, *(self.sizes[degree - 1] for degree in key))
            for key, group in sorted(terms.items())
        }


_UNROLLED = 100
"""Algebras of at most this dimension are spelled out slot by slot for the compiler."""

Degrees: TypeAlias = tuple[int, int, int]
Plans: TypeAlias = dict[Degrees, BlockProduct]
