"""Tensors of one sample, as the generated code holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ude.solve.traced import Unsupported

KINDS = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I64",
    torch.bool: "B",
}
"""Types of the generated code: one number for each sample that is worked on at once."""

Index: TypeAlias = int | str
"""A number, or an expression of the generated code."""


SMALL = 16
"""Tensors of at most so many numbers live in variables of their own, without loops."""


@dataclass(frozen=True, slots=True)
class Cells:
    """One expression for every element; only indexed by numbers."""

    expressions: tuple[str, ...]

    def at(self, index: Index) -> str:
        """Return the element at an index into the buffer."""
        assert isinstance(index, int)
        return self.expressions[index]


@dataclass(frozen=True, slots=True)
class Block:
    """An array of the generated code.

    Args:
        template: Expression of an element, with `{}` for the index.
    """

    template: str

    def at(self, index: Index) -> str:
        """Return the element at an index into the buffer."""
        return self.template.format(index)


@dataclass(frozen=True, slots=True)
class Formula:
    """Elements that are worked out where they are used.

    Args:
        element: From one index for each axis to an expression.
    """

    element: Callable[[tuple[Index, ...]], str]


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of one sample.

    Args:
        buffer: Where its elements come from.
        view: A tensor without data whose shape and strides say which element of the buffer is where.
        dtype: Kind of number.
    """

    buffer: Cells | Block | Formula
    view: Tensor
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""
        return tuple(self.view.shape)

    @property
    def symbolic(self) -> bool:
        """It can be indexed by expressions."""
        return not isinstance(self.buffer, Cells) or not any(
            stride and size > 1 for stride, size in zip(self.view.stride(), self.shape, strict=True)
        )

    def at(self, indices: Sequence[Index]) -> str:
        """Return the expression of one element."""
        if isinstance(self.buffer, Formula):
            return self.buffer.element(tuple(indices))
        start = int(self.view.storage_offset())
        return self.buffer.at(flat_index(indices, self.view.stride(), self.shape, start))

    def seen_as(self, view: Tensor) -> Value:
        """Return the same elements in another view of the same buffer."""
        if not isinstance(self.buffer, Formula):
            return Value(self.buffer, view, self.dtype)
        axes = _axes(self.view, view)
        element = self.buffer.element

        def permuted(indices: tuple[Index, ...]) -> str:
            return element(tuple(0 if axis is None else indices[axis] for axis in axes))

        # Seen from now on as an array of its own: strides count from its new shape.
        return Value(Formula(permuted), torch.empty(view.shape, device="meta"), self.dtype)


def constant(value: float | int | bool, dtype: torch.dtype, shape: Sequence[int] = ()) -> Value:
    """Return a tensor filled with a number."""
    view = torch.empty(1, device="meta").as_strided(tuple(shape), (0,) * len(shape))
    return Value(Cells((literal(value, dtype),)), view, dtype)


def literal(value: float | int | bool, dtype: torch.dtype) -> str:
    """Return a number in the generated code."""
    if dtype == torch.bool:
        return f"truth({int(bool(value))})"
    if dtype in (torch.int64, torch.int32):
        return f"i64({int(value)}LL)"
    name, suffix = ("f32", "f") if dtype == torch.float32 else ("f64", "")
    number = float(value)
    if number != number:
        return f"{name}(NAN)"
    if number in (float("inf"), float("-inf")):
        return f"{name}({'-' if number < 0 else ''}INFINITY)"
    return f"{name}({number!r}{suffix})"


def flat_index(indices: Sequence[Index], strides: Sequence[int], shape: Sequence[int], start: int = 0) -> Index:
    """Return the place in memory of an element."""
    number, terms = start, []
    for index, stride, size in zip(indices, strides, shape, strict=True):
        if isinstance(index, int):
            number += index * stride
        elif stride and size > 1:
            terms.append(index if stride == 1 else f"{index}*{stride}")
    if not terms:
        return number
    return " + ".join([*terms, str(number)] if number else terms)


def _axes(old: Tensor, new: Tensor) -> list[int | None]:
    """Return for each axis of `old` the axis of `new` that runs over it; raise if they are not the same axes."""
    places = {stride: axis for axis, (size, stride) in enumerate(zip(new.shape, new.stride(), strict=True)) if size > 1}
    axes: list[int | None] = []
    for size, stride in zip(old.shape, old.stride(), strict=True):
        axis = places.pop(stride, None) if size > 1 else None
        if size > 1 and (axis is None or new.shape[axis] != size):
            raise Unsupported("a view of a formula")
        axes.append(axis)
    if new.storage_offset() or any(stride for stride in places):
        raise Unsupported("a view of a formula")
    return axes
