"""Products of matrices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

from ude.solve.native.values import KINDS, Block, Cells, Index, Value, flat_index, literal
from ude.solve.traced import Unsupported

if TYPE_CHECKING:
    from ude.solve.native.emitter import Emitter

aten = torch.ops.aten

WRITTEN_OUT = 96
"""Products of at most so many multiplications are written out."""
COLUMNS = 4
"""Entries of a row of the result that are added up at the same time: sums that do not wait for each other."""


def product(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    """Write the product of matrices, or of stacks of them, with or without a term to add."""
    bias, (a, b) = (args[0], args[1:3]) if node.target == aten.addmm.default else (None, args[:2])
    if kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1:
        raise Unsupported("addmm with factors")
    a, b = emitter.evaluated(a), emitter.evaluated(b)
    if bias is None and a.shape[-1] == 1:
        factors = [x.seen_as(x.view.expand(result.shape)) for x in (a, b)]
        return emitter.pointwise(node, result, factors, result.dtype, lambda x, y: f"({x} * {y})")
    shift = None
    if bias is not None:
        bias = emitter.evaluated(bias)
        shift = bias.seen_as(bias.view.expand(result.shape))
    if result.numel() * a.shape[-1] <= WRITTEN_OUT:
        return _written_out(emitter, result, a, b, shift)
    shift = None if shift is None else emitter.symbolic(shift)
    return _Product(emitter, result, emitter.symbolic(a), emitter.symbolic(b), shift, emitter.name()).write()


def _written_out(emitter: Emitter, result: Tensor, a: Value, b: Value, shift: Value | None) -> Value:
    cells = []
    for index in itertools.product(*map(range, result.shape)):
        terms = [f"{a.at([*index[:-1], k])} * {b.at([*index[:-2], k, index[-1]])}" for k in range(a.shape[-1])]
        if shift is not None:
            terms.insert(0, shift.at(index))
        cells.append(emitter.named(" + ".join(terms), result))
    return Value(Cells(tuple(cells)), torch.empty(result.shape, device="meta"), result.dtype)


@dataclass(frozen=True, slots=True)
class _Product:
    """A product in loops.

    Args:
        emitter: Takes the statements.
        result: Shape and type.
        a: First factor, of shape `(*lead, inner)`.
        b: Second factor, of shape `(*lead[:-1], inner, columns)`.
        shift: Added to the result.
        name: Of the array of the result.
    """

    emitter: Emitter
    result: Tensor
    a: Value
    b: Value
    shift: Value | None
    name: str

    def write(self) -> Value:
        """Write the loops that suit the layout in memory."""
        view = torch.empty(self.result.shape, device="meta")
        self.emitter.lines.append(f"{KINDS[self.result.dtype]} {self.name}[{self.result.numel()}];")
        if self.emitter.lanes == 1 and self.b.view.stride()[-1] == 1 and self.b.shape[-1] > 1:
            self._rows()
        else:
            self._entries()
        return Value(Block(self.name + "[{}]"), view, self.result.dtype)

    def _at(self, index: Sequence[Index]) -> str:
        shape = tuple(self.result.shape)
        return f"{self.name}[{flat_index(index, torch.empty(shape, device='meta').stride(), shape)}]"

    def _begin(self, index: Sequence[Index]) -> str:
        return literal(0.0, self.result.dtype) if self.shift is None else self.shift.at(index)

    def _rows(self) -> None:
        """Add rows of the second factor, which are contiguous, one after the other."""
        lead, stacked = self.result.shape[:-1], self.result.ndim - 2
        self.emitter.loop(self.result.shape, lambda i: f"{self._at(i)} = {self._begin(i)};")
        self.emitter.loop(
            (*lead, self.a.shape[-1], self.result.shape[-1]),
            lambda i: (
                f"{self._at((*i[:-2], i[-1]))} += {self.a.at(i[:-1])} * {self.b.at((*i[:stacked], i[-2], i[-1]))};"
            ),
        )

    def _entries(self) -> None:
        """Work out some entries of a row at the same time."""
        columns, lead = self.result.shape[-1], self.result.shape[:-1]
        width = 1 if self.emitter.lanes == 1 else COLUMNS
        whole, j = columns - columns % width, self.emitter.name()
        if whole:
            head = f"for (int {j} = 0; {j} < {whole}; {j} += {width})"
            self.emitter.loop(lead, lambda i: f"{head} {{ {self._dots(i, j, width)} }}")
        if columns > whole:
            self.emitter.loop(lead, lambda i: f"{{ {self._dots(i, whole, columns - whole)} }}")

    def _dots(self, index: tuple[Index, ...], first: Index, count: int) -> str:
        """Return statements for `count` entries of a row."""
        k, kind = self.emitter.name(), KINDS[self.result.dtype]
        sums = {self.emitter.name(): _shifted(first, j) for j in range(count)}
        text = "".join(f"{kind} {name} = {self._begin((*index, place))};" for name, place in sums.items())
        if self.emitter.lanes == 1:
            # The only place where the order of a sum is left to the compiler.
            text += f"\n#pragma omp simd reduction(+:{', '.join(sums)})\n"
        steps = "".join(
            f"{name} += {self.a.at((*index, k))} * {self.b.at((*index[:-1], k, place))};"
            for name, place in sums.items()
        )
        text += f"for (int {k} = 0; {k} < {self.a.shape[-1]}; ++{k}) {{ {steps} }}"
        return text + "".join(f"{self._at((*index, place))} = {name};" for name, place in sums.items())


def _shifted(index: Index, by: int) -> Index:
    return index + by if isinstance(index, int) else f"({index} + {by})" if by else index
