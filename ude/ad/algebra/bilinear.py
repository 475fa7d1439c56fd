"""Products of blocks of slots: sparse bilinear maps, compiled once into a few operations on slices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

Multiply: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Term(NamedTuple):
    """One structure constant: `out += scale * left * right`; numbers of slots within their blocks."""

    out: int
    left: int
    right: int
    scale: Fraction


class Run(NamedTuple):
    """Terms in a row: each operand stands still (stride 0) or advances by one slot (stride 1).

    Attributes:
        out: Slots of the result.
        left: Slots of the left operand; one where it stands still.
        right: Slots, or forms, of the right operand.
        scales: The factor of each term.
        scale: The factor of all terms; None if they differ.
        is_sum: All terms go into one slot of the result.
        is_formed: The right operand are forms.
        is_first: No run before has written to these slots of the result.
        blanks: If one has, those to which it has not.
    """

    out: slice
    left: slice
    right: slice
    scales: tuple[float, ...]
    scale: float | None
    is_sum: bool
    is_formed: bool
    is_first: bool = False
    blanks: tuple[int, ...] = ()

    def terms(self) -> Iterable[tuple[int, int, int, float]]:
        """Yield the numbers of the slots of result, left and right operand, and the factor, of each term."""
        columns = [range(part.start, part.stop) for part in (self.out, self.left, self.right)]
        for i, scale in enumerate(self.scales):
            out, left, right = (column[i if len(column) > 1 else 0] for column in columns)
            yield out, left, right, scale


_STRIDES = ((1, 1, 1), (1, 0, 1), (1, 1, 0), (0, 1, 1))


@dataclass(frozen=True, slots=True)
class BlockProduct:
    r"""A bilinear map of two blocks of slots, $z_c = \sum_{ab} C_{cab}\, x_a y_b$.

    Where several right slots meet the same left slot, their combination (a "form") is made first; one small matrix
    product makes all of them.

    Args:
        size: Number of slots of the result.
        forms: Rows of coefficients over the right block.
        runs: What is multiplied.
        untouched: Slots of the result that are zero.
        is_swapped: Left and right have changed places, since the other way round takes fewer operations.
        constants: Forms as tensors, by number format and device.
    """

    size: int
    forms: tuple[tuple[float, ...], ...]
    runs: tuple[Run, ...]
    untouched: tuple[int, ...] = ()
    is_swapped: bool = False
    constants: dict[Any, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, terms: Sequence[Term], size: int, left_size: int, right_size: int) -> BlockProduct:
        """Compile structure constants."""
        straight = cls._of(terms, size, right_size, is_swapped=False)
        if not any(run.scale is None for run in straight.runs) and not straight.forms:
            return straight
        exchanged = [Term(out, right, left, scale) for out, left, right, scale in terms]
        swapped = cls._of(exchanged, size, left_size, is_swapped=True)
        return min(straight, swapped, key=lambda product: product.cost)

    @classmethod
    def _of(cls, terms: Sequence[Term], size: int, right_size: int, *, is_swapped: bool) -> BlockProduct:
        by_pair: dict[tuple[int, int], dict[int, Fraction]] = defaultdict(dict)
        for out, left, right, scale in terms:
            row = by_pair[out, left]
            row[right] = row.get(right, Fraction(0)) + scale
        rows = {pair: {b: scale for b, scale in row.items() if scale} for pair, row in by_pair.items()}
        singles = {(*pair, b): row[b] for pair, row in rows.items() if len(row) == 1 for b in row}
        formed, forms = _share_forms({pair: row for pair, row in rows.items() if len(row) > 1}, right_size)
        runs, untouched = _ordered([*_runs(singles, is_formed=False), *_runs(formed, is_formed=True)], size)
        return cls(size, forms, tuple(runs), tuple(untouched), is_swapped)

    @property
    def cost(self) -> int:
        """Products, counting every operation as a few of them."""
        return self.multiplications + 2 * len(self.runs) + len(self.forms) // 2

    @property
    def multiplications(self) -> int:
        """Products of two numbers for each element of a slot."""
        return sum(len(run.scales) for run in self.runs)

    def __call__(self, x: Tensor, y: Tensor, multiply: Multiply | None = None) -> Tensor:
        """Apply the map to blocks of shape `(slots, *)`, elementwise or with another product of single slots."""
        if self.is_swapped:
            x, y = y, x
            given = multiply
            multiply = None if given is None else (lambda a, b: given(b, a))
        forms = self._combine(y)
        block: Tensor | None = None
        singles: dict[int, Tensor] = {}
        for run in self.runs:
            part = self._product(run, x, forms if run.is_formed else y, multiply)
            if len(part) == self.size:
                block = part if block is None else block + part
                continue
            for slot, piece in enumerate(part.unbind(0), run.out.start):
                singles[slot] = piece if slot not in singles else singles[slot] + piece
        if not singles:
            assert block is not None  # a product without terms is never asked for
            return block
        empty = torch.zeros_like(next(iter(singles.values())))
        stacked = torch.stack([singles.get(slot, empty) for slot in range(self.size)])
        return stacked if block is None else block + stacked

    def slotwise(self, x: Sequence[Tensor], y: Sequence[Tensor]) -> list[Tensor | None]:
        """Apply the elementwise map to single slots, for a compiler that fuses such operations."""
        if self.is_swapped:
            x, y = y, x
        forms = [_weighted_sum(form, y) for form in self.forms]
        result: list[Tensor | None] = [None] * self.size
        for run in self.runs:
            for out, a, b, scale in run.terms():
                right = forms[b] if run.is_formed else y[b]
                product = x[a] * right if scale == 1.0 else x[a] * right * scale
                total = result[out]
                result[out] = product if total is None else total + product
        return result

    def write(self, out: Tensor, x: Tensor, y: Tensor, *, fresh: bool) -> None:
        """Put the elementwise map into `out`, or add it if that is not fresh, in place; not for recorded tensors."""
        if self.is_swapped:
            x, y = y, x
        forms = self._combine(y, keep=True)
        for run in self.runs:
            target, right = out[run.out], forms if run.is_formed else y
            if fresh and run.is_first:
                self._put(run, target, x, right)
                continue
            if fresh:
                for slot in run.blanks:
                    out[slot].zero_()
            self._add(run, target, x, right)
        if fresh:
            for slot in self.untouched:
                out[slot].zero_()

    def _put(self, run: Run, target: Tensor, x: Tensor, right: Tensor) -> None:
        a, b, scale = _operands(run, x, right)
        if not run.is_sum:
            _multiply(a, b, scale, target)
        elif a[0].numel() < LARGE:
            torch.sum(a * b, 0, keepdim=True, out=target)
            if scale != 1.0:
                target.mul_(scale)
        else:
            _multiply(a[:1], b[:1], scale, target)
            _add_products(a[1:], b[1:], scale, target[0])

    def _add(self, run: Run, target: Tensor, x: Tensor, right: Tensor) -> None:
        a, b, scale = _operands(run, x, right)
        if not run.is_sum:
            target.addcmul_(a, b, value=scale)
        elif a[0].numel() < LARGE:
            target.add_((a * b).sum(0, keepdim=True), alpha=scale)
        else:
            _add_products(a, b, scale, target[0])

    def _product(self, run: Run, x: Tensor, right: Tensor, multiply: Multiply | None) -> Tensor:
        a, b, scale = _operands(run, x, right)
        product = a * b if multiply is None else multiply(a, b)
        if run.is_sum:
            product = product.sum(0, keepdim=True)
        return product if scale == 1.0 else product * scale

    def _combine(self, y: Tensor, *, keep: bool = False) -> Tensor:
        if not self.forms:
            return y
        key = y.dtype, y.device
        forms = self.constants.get(key) if keep else None
        if forms is None:
            forms = y.new_tensor(self.forms)
            if keep and type(forms) is Tensor and not forms.is_inference():
                self.constants[key] = forms
        return torch.mm(forms, y.reshape(len(y), -1)).reshape(-1, *y.shape[1:])


LARGE = 4096
"""From this many numbers in a slot on, a sum of products is added slot by slot rather than through a temporary."""


def _weighted_sum(weights: Sequence[float], slots: Sequence[Tensor]) -> Tensor:
    total: Tensor | None = None
    for weight, slot in zip(weights, slots, strict=True):
        if weight:
            term = slot if weight == 1.0 else slot * weight
            total = term if total is None else total + term
    assert total is not None  # forms are not empty
    return total


def _operands(run: Run, x: Tensor, right: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the operands and one factor; factors that differ are multiplied into the operand that advances."""
    a, b = x[run.left], right[run.right]
    if run.scale is not None:
        return a, b, run.scale
    factors = a.new_tensor(run.scales)
    if len(a) > 1:
        return a * factors.reshape(-1, *(1,) * (a.ndim - 1)), b, 1.0
    return a, b * factors.reshape(-1, *(1,) * (b.ndim - 1)), 1.0


def _multiply(a: Tensor, b: Tensor, scale: float, out: Tensor) -> None:
    if scale == 1.0:
        torch.mul(a, b, out=out)
    else:  # one pass for product and factor
        torch.addcmul(a.new_zeros(()), a, b, value=scale, out=out)


def _add_products(a: Tensor, b: Tensor, scale: float, out: Tensor) -> None:
    for left, right in zip(a.unbind(0), b.unbind(0), strict=True):
        out.addcmul_(left, right, value=scale)


def _share_forms(
    rows: dict[tuple[int, int], dict[int, Fraction]], right_size: int
) -> tuple[dict[tuple[int, int, int], Fraction], tuple[tuple[float, ...], ...]]:
    """Return products of left slots with forms, which equal combinations share, and the forms."""
    numbers: dict[tuple[tuple[int, Fraction], ...], int] = {}
    products = {}
    for pair, row in sorted(rows.items()):
        key = tuple(sorted(row.items()))
        products[*pair, numbers.setdefault(key, len(numbers))] = Fraction(1)
    forms = []
    for key in numbers:
        coefficients = dict(key)
        forms.append(tuple(float(coefficients.get(b, 0)) for b in range(right_size)))
    return products, tuple(forms)


def _runs(entries: dict[tuple[int, int, int], Fraction], *, is_formed: bool) -> Iterable[Run]:
    """Cover the terms by runs, longest first from each term on; runs with one factor are preferred."""
    waiting = dict(sorted(entries.items()))
    while waiting:
        start = next(iter(waiting))
        uniform = [(strides, _follow(waiting, start, strides, same=True)) for strides in _STRIDES]
        varied = [(strides, _follow(waiting, start, strides, same=False)) for strides in _STRIDES]
        strides, chain = max(uniform, key=lambda candidate: len(candidate[1]))
        longer = max(varied, key=lambda candidate: len(candidate[1]))
        if len(longer[1]) > 4 * len(chain):  # worth a multiplication by the factors
            strides, chain = longer
        scales = tuple(float(waiting[term]) for term in chain)
        out, left, right = (
            slice(n, n + 1 + stride * (len(chain) - 1)) for n, stride in zip(start, strides, strict=True)
        )
        scale = scales[0] if len(set(scales)) == 1 else None
        yield Run(out, left, right, scales, scale, is_sum=len(chain) > 1 and not strides[0], is_formed=is_formed)
        for term in chain:
            del waiting[term]


def _ordered(runs: Sequence[Run], size: int) -> tuple[list[Run], list[int]]:
    """Note which runs are the first to write to their slots, and return the slots to which none writes."""
    blank, noted = set(range(size)), []
    for run in runs:
        slots = set(range(run.out.start, run.out.stop))
        noted.append(run._replace(is_first=slots <= blank, blanks=tuple(sorted(slots & blank))))
        blank -= slots
    return noted, sorted(blank)


def _follow(
    waiting: dict[tuple[int, int, int], Fraction], start: tuple[int, int, int], strides: Sequence[int], same: bool
) -> list[tuple[int, int, int]]:
    """Return the terms met from `start` on with these strides, as long as the factor is the same, if it must be."""
    chain, term = [start], start
    while True:
        term = (term[0] + strides[0], term[1] + strides[1], term[2] + strides[2])
        if term not in waiting or (same and waiting[term] != waiting[start]):
            return chain
        chain.append(term)
