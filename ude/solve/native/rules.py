"""Operations that are more than one expression for each element."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import Node

from ude.solve.native.operations import REDUCTIONS
from ude.solve.native.products import product
from ude.solve.native.values import (
    KINDS,
    SMALL,
    Block,
    Cells,
    Formula,
    Index,
    Value,
    constant,
    flat_index,
    literal,
)
from ude.solve.traced import Unsupported

if TYPE_CHECKING:
    from ude.solve.native.emitter import Emitter

aten = torch.ops.aten

Rule: TypeAlias = "Callable[[Emitter, Node, Any, Any, Any], Value]"
"""Writes statements for a node with an example of its result, its arguments and its named arguments."""


def _where(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    dtypes = [torch.bool, result.dtype, result.dtype]
    return emitter.pointwise(node, result, args, dtypes, lambda c, a, b: f"choose({c}, {a}, {b})")


def _clamp(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    low = args[1] if len(args) > 1 else kwargs.get("min")
    high = args[2] if len(args) > 2 else kwargs.get("max")
    if node.target in (aten.clamp_max.default, aten.clamp_max.Tensor):
        low, high = None, args[1]
    operands, kinds = [args[0]], []
    for name, bound in (("maximum", low), ("minimum", high)):
        if bound is not None:
            operands.append(bound)
            kinds.append(name)

    def expression(x: str, *bounds: str) -> str:
        for name, bound in zip(kinds, bounds, strict=True):
            x = f"{name}({x}, {bound})"
        return x

    return emitter.pointwise(node, result, operands, result.dtype, expression)


def _power(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    base, exponent = args
    if isinstance(base, Value) and not isinstance(exponent, Value):
        special = {0.5: "sqrt_({})", -0.5: "rsqrt({})", -1.0: "inverse({})", 0.0: "one_like({})", 1.0: "{}"}
        form = special.get(float(exponent))
        if form is None and float(exponent).is_integer() and 2 <= abs(exponent) <= 16:
            form = f"integer_power<{abs(int(exponent))}>({{}})"
            form = f"inverse({form})" if exponent < 0 else form
        if form is not None:
            return emitter.pointwise(node, result, [base], result.dtype, lambda a: form.format(a))
    return emitter.pointwise(node, result, [base, exponent], result.dtype, lambda a, b: f"power({a}, {b})")


def _cast(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    if KINDS[args[0].dtype] == KINDS[result.dtype]:
        return Value(args[0].buffer, args[0].view, result.dtype)
    return emitter.pointwise(node, result, [args[0]], result.dtype, lambda a: a)


def _addcmul(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    value = kwargs.get("value", 1)
    scale = "" if value == 1 else f"{literal(value, result.dtype)} * "
    return emitter.pointwise(node, result, args[:3], result.dtype, lambda a, b, c: f"({a} + {scale}({b} * {c}))")


def _fma(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    return emitter.pointwise(node, result, args, result.dtype, lambda a, b, c: f"({a} * {b} + {c})")


def _addcdiv(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    scale = f"{literal(kwargs.get('value', 1), result.dtype)} * "
    return emitter.pointwise(node, result, args[:3], result.dtype, lambda a, b, c: f"({a} + {scale}({b} / {c}))")


def _fill_copy(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    return emitter.pointwise(node, result, [args[1]], result.dtype, lambda a: a)


def _cat(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    parts = [x for x in args[0] if x.view.numel()]
    axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % result.ndim
    return _pasted(emitter, result, [(part, axis, _starts(parts, axis)[i], 1) for i, part in enumerate(parts)])


def _starts(parts: Sequence[Value], axis: int) -> list[int]:
    return list(itertools.accumulate([0, *(part.shape[axis] for part in parts)]))


def _select_scatter(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    base, source, axis, index = args
    axis %= base.view.ndim
    source = emitter.evaluated(source)
    row = source.seen_as(source.view.unsqueeze(axis))
    return _pasted(emitter, result, [(base, axis, 0, 1), (row, axis, index % base.shape[axis], 1)])


def _slice_scatter(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    base, source, *rest = args
    axis, start, _, step = (*rest, *(0, None, None, 1)[len(rest) :])
    axis, start, step = int(axis or 0) % base.view.ndim, int(start or 0), int(step or 1)
    start += base.shape[axis] if start < 0 else 0
    return _pasted(emitter, result, [(base, axis, 0, 1), (source, axis, start, step)])


def _select_backward(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    source, shape, axis, index = args
    return _select_scatter(emitter, node, result, (constant(0.0, result.dtype, shape), source, axis, index), {})


def _slice_backward(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    source, shape, axis, start, end, step = args
    return _slice_scatter(
        emitter, node, result, (constant(0.0, result.dtype, shape), source, axis, start, end, step), {}
    )


def _as_strided(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    value = _in_order(emitter, node, args[0])
    return value.seen_as(value.view.as_strided(*args[1:], **kwargs))


def _as_strided_scatter(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    base = _in_order(emitter, node, args[0])
    source, size, stride, offset = emitter.symbolic(args[1]), args[2], args[3], args[4] if len(args) > 4 else 0
    assert isinstance(base.buffer, Block)
    target = base.buffer.template
    emitter.loop(
        size, lambda index: f"{target.format(flat_index(index, stride, size, offset or 0))} = {source.at(index)};"
    )
    return base


def _in_order(emitter: Emitter, node: Node, value: Value) -> Value:
    """Return a copy whose elements lie in memory as those of the tensor that the graph was traced with."""
    traced = node.args[0].meta["val"]  # pyright: ignore
    if not traced.is_contiguous() or traced.storage_offset():
        raise Unsupported("strides of a tensor that is not contiguous")
    return emitter.stored(value)


def _pad(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    value, widths = args[0], args[1]
    if any(width < 0 for width in widths):
        raise Unsupported("padding by a negative width")
    number = args[2] if len(args) > 2 else kwargs.get("value", 0.0)
    for i in range(len(widths) // 2):
        axis = value.view.ndim - 1 - i
        shape = list(value.shape)
        shape[axis] += widths[2 * i] + widths[2 * i + 1]
        whole = torch.empty(shape, device="meta", dtype=result.dtype)
        base = constant(number, result.dtype, shape)
        value = _pasted(emitter, whole, [(base, axis, 0, 1), (value, axis, widths[2 * i], 1)])
    return value


def _pasted(emitter: Emitter, result: Tensor, parts: Sequence[tuple[Value, int, int, int]]) -> Value:
    """Return a tensor put together of parts, each at a place along an axis, with a step; later ones win."""
    view = torch.empty(result.shape, device="meta")
    if result.numel() <= SMALL and not any(isinstance(part.buffer, Formula) for part, *_ in parts):
        cells = [""] * result.numel()
        for part, axis, start, step in parts:
            for index in itertools.product(*map(range, part.shape)):
                place = [*index]
                place[axis] = start + step * index[axis]
                at = flat_index(place, view.stride(), tuple(view.shape))
                assert isinstance(at, int)
                cells[at] = emitter.reader(part, result.dtype)(index)
        return Value(Cells(tuple(cells)), view, result.dtype)
    name = emitter.name()
    emitter.lines.append(f"{KINDS[result.dtype]} {name}[{result.numel()}];")
    for part, axis, start, step in parts:
        source = emitter.reader(emitter.symbolic(part), result.dtype)

        def statement(
            index: tuple[Index, ...], axis: int = axis, start: int = start, step: int = step, source: Any = source
        ) -> str:
            place = list(index)
            moved = index[axis]
            place[axis] = start + step * moved if isinstance(moved, int) else f"({start} + {step}*{moved})"
            return f"{name}[{flat_index(place, view.stride(), tuple(view.shape))}] = {source(index)};"

        emitter.loop(part.shape, statement)
    return Value(Block(name + "[{}]"), view, result.dtype)


def _reduce(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    value = emitter.evaluated(args[0])
    rank = value.view.ndim
    dims = args[1] if len(args) > 1 and isinstance(args[1], int | list | tuple) else kwargs.get("dim")
    dims = list(range(rank)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    reduced = sorted({d % rank for d in dims}) if rank else []
    count = math.prod(value.shape[d] for d in reduced)
    if count == 1 and value.dtype == result.dtype:
        return emitter.view(aten.view.default, (value, tuple(result.shape)), {})
    scale = f" * {literal(1.0 / max(count, 1), result.dtype)}" if "mean" in str(node.target) else ""
    kept = [d for d in range(rank) if d not in reduced]
    if value.view.numel() <= 4 * SMALL and result.numel() <= SMALL:
        return _sum_of_cells(emitter, node, result, value, kept, reduced, scale)
    return _sum_in_loops(emitter, node, result, value, kept, reduced, scale)


def _sum_of_cells(
    emitter: Emitter, node: Node, result: Tensor, value: Value, kept: list[int], reduced: list[int], scale: str
) -> Value:
    combine, nothing = REDUCTIONS[node.target]  # pyright: ignore[reportArgumentType]
    read, cells = emitter.reader(value, result.dtype), []
    for outer in itertools.product(*(range(value.shape[d]) for d in kept)):
        total = ""
        for inner in itertools.product(*(range(value.shape[d]) for d in reduced)):
            place = dict(zip(kept, outer, strict=True)) | dict(zip(reduced, inner, strict=True))
            one = read([place[d] for d in range(value.view.ndim)])
            total = combine.format(total, one) if total else one
        cells.append(emitter.named((total or literal(nothing, result.dtype)) + scale, result))
    return Value(Cells(tuple(cells)), torch.empty(result.shape, device="meta"), result.dtype)


def _sum_in_loops(
    emitter: Emitter, node: Node, result: Tensor, value: Value, kept: list[int], reduced: list[int], scale: str
) -> Value:
    combine, nothing = REDUCTIONS[node.target]  # pyright: ignore[reportArgumentType]
    name, total, read = emitter.name(), emitter.name(), emitter.reader(emitter.symbolic(value), result.dtype)
    emitter.lines.append(f"{KINDS[result.dtype]} {name}[{result.numel()}];")
    outer: dict[int, Index] = {d: emitter.name() if value.shape[d] > 1 else 0 for d in kept}
    for d, i in outer.items():
        if isinstance(i, str):
            emitter.lines.append(f"for (int {i} = 0; {i} < {value.shape[d]}; ++{i})")
    emitter.lines.append(f"{{ {KINDS[result.dtype]} {total} = {literal(nothing, result.dtype)};")

    def step(inner: tuple[Index, ...]) -> str:
        place = outer | dict(zip(reduced, inner, strict=True))
        return f"{total} = {combine.format(total, read([place[d] for d in range(value.view.ndim)]))};"

    emitter.loop([value.shape[d] for d in reduced], step)
    flat = torch.empty([value.shape[d] for d in kept], device="meta")
    place = flat_index(list(outer.values()), flat.stride(), tuple(flat.shape))
    emitter.lines.append(f"{name}[{place}] = {total}{scale}; }}")
    return Value(Block(name + "[{}]"), torch.empty(result.shape, device="meta"), result.dtype)


def _gather(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    value, axis, index = args[0], args[1], args[2]
    rank, size = value.view.ndim, value.shape[args[1] % value.view.ndim]
    value, index, axis = emitter.evaluated(value), emitter.evaluated(index), axis % rank
    cells = []
    if result.numel() > SMALL or size > 4 * SMALL:
        raise Unsupported("a large gather")
    for place in itertools.product(*map(range, result.shape)):
        chosen = index.at(place)
        total = value.at([0 if d == axis else place[d] for d in range(rank)])
        for i in range(1, size):
            other = value.at([i if d == axis else place[d] for d in range(rank)])
            total = f"choose(eq({chosen}, i64({i}LL)), {other}, {total})"
        cells.append(emitter.named(total, result))
    return Value(Cells(tuple(cells)), torch.empty(result.shape, device="meta"), result.dtype)


def _index(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    """Take elements from places that are known."""
    return _taken(emitter, result, args[0], _places(args[0].shape)[_known(args[1])])


def _index_select(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    value, axis, index = args
    _known([index])
    return _taken(emitter, result, value, _places(value.shape).index_select(axis, index))


def _flip(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    return _taken(emitter, result, args[0], _places(args[0].shape).flip(args[1]))


def _places(shape: Sequence[int]) -> Tensor:
    """Return the number of every element of a tensor, in its usual order."""
    return torch.arange(math.prod(shape)).reshape(tuple(shape))


def _known(index: Sequence[Any]) -> tuple[Any, ...]:
    if not all(x is None or isinstance(x, Tensor) for x in index):
        raise Unsupported("an index that depends on the state")
    return tuple(slice(None) if x is None else x for x in index)


def _taken(emitter: Emitter, result: Tensor, value: Value, places: Tensor) -> Value:
    """Return elements of a tensor by their numbers."""
    value, shape = emitter.evaluated(value), value.shape
    if places.numel() > LARGEST_CHOICE:
        raise Unsupported("a choice of many elements")
    chosen = [torch.unravel_index(torch.tensor(number), shape) for number in places.flatten().tolist()]
    cells = tuple(value.at([int(i) for i in index]) for index in chosen)
    return Value(Cells(cells), torch.empty(result.shape, device="meta"), result.dtype)


def _index_put(emitter: Emitter, node: Node, result: Tensor, args: Any, kwargs: Any) -> Value:
    """Put, or add, elements to places that are known."""
    base, index, source = args[:3]
    places = _places(base.shape)[_known(index)]
    base, source = (emitter.evaluated(emitter.held(x)) for x in (base, source))
    if places.numel() > LARGEST_CHOICE or result.numel() > LARGEST_CHOICE:
        raise Unsupported("a choice of many elements")
    source = source.seen_as(source.view.expand(places.shape))
    cells = [base.at(i) for i in itertools.product(*map(range, base.shape))]
    for at, where in zip(itertools.product(*map(range, places.shape)), places.flatten().tolist(), strict=True):
        cells[where] = f"({cells[where]} + {source.at(at)})" if len(args) > 3 and args[3] else source.at(at)
    return Value(Cells(tuple(cells)), torch.empty(result.shape, device="meta"), result.dtype)


LARGEST_CHOICE = 256
"""Most elements that are taken or put one by one."""

WITH_CONSTANTS = frozenset(
    {
        aten.index.Tensor,
        aten._unsafe_index.Tensor,
        aten.index_select.default,
        aten.index_put.default,
        aten._unsafe_index_put.default,
    }
)
"""Operations whose constant tensors are indices, not numbers of the code."""

RULES: dict[Any, Rule] = {
    aten.where.self: _where,
    aten.clamp.default: _clamp,
    aten.clamp.Tensor: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_min.Tensor: _clamp,
    aten.clamp_max.default: _clamp,
    aten.clamp_max.Tensor: _clamp,
    aten.pow.Tensor_Scalar: _power,
    aten.pow.Scalar: _power,
    aten._to_copy.default: _cast,
    torch.ops.prims.convert_element_type.default: _cast,
    aten.addcmul.default: _addcmul,
    aten.addcdiv.default: _addcdiv,
    "prims.fma.default": _fma,  # made when inductor is loaded
    aten.copy.default: _fill_copy,
    aten.cat.default: _cat,
    aten.select_scatter.default: _select_scatter,
    aten.slice_scatter.default: _slice_scatter,
    aten.select_backward.default: _select_backward,
    aten.slice_backward.default: _slice_backward,
    aten.as_strided.default: _as_strided,
    aten.as_strided_scatter.default: _as_strided_scatter,
    aten.constant_pad_nd.default: _pad,
    aten.gather.default: _gather,
    aten.index.Tensor: _index,
    aten._unsafe_index.Tensor: _index,
    aten.index_select.default: _index_select,
    aten.index_put.default: _index_put,
    aten._unsafe_index_put.default: _index_put,
    aten.flip.default: _flip,
    "prims.rev.default": _flip,
    aten.mm.default: product,
    aten.bmm.default: product,
    aten.addmm.default: product,
    **dict.fromkeys(REDUCTIONS, _reduce),
}
