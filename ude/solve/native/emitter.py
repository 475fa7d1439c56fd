"""From a graph of tensor operations on one sample to statements of C++."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves, tree_map_only

from ude.solve.native.operations import (
    ARITHMETIC,
    COMPARISONS,
    COPIES,
    FILLED,
    LOGIC,
    MANY_VIEWS,
    RENAMED,
    VIEWS,
)
from ude.solve.native.rules import RULES, WITH_CONSTANTS
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

aten = torch.ops.aten


LARGEST_CONSTANT = 4096
"""Most numbers in a tensor that is written into the code."""


class Emitter:
    """Writes the statements of one program.

    Args:
        prefix: Begins the names of variables, which must differ between programs in one scope.
        lanes: Samples worked on at once.
    """

    def __init__(self, prefix: str, lanes: int) -> None:
        self.prefix, self.lanes = prefix, lanes
        self.lines: list[str] = []
        self._numbers = itertools.count()

    def run(self, graph: GraphModule, inputs: Sequence[Value]) -> list[Value]:
        """Write the statements of a graph and return the values of its outputs.

        Raises:
            Unsupported: If the graph contains an operation that is not known here.
        """
        values: dict[Node, Any] = {}
        feed = iter(inputs)
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(feed)
            elif node.op == "get_attr":
                values[node] = getattr(graph, str(node.target))
            elif node.op == "output":
                return [self.held(self._looked_up(values, x)) for x in node.args[0]]
            else:
                values[node] = self._written(node, values)
        raise AssertionError("a graph has an output")

    @staticmethod
    def _looked_up(values: dict[Node, Any], x: Any) -> Any:
        return map_arg(x, lambda node: values[node])

    def held(self, x: Any) -> Any:
        """Return a constant of the graph as a value of the code; anything else as it is."""
        if not isinstance(x, Tensor):
            return x
        if x.numel() > LARGEST_CONSTANT or x.dtype not in KINDS:
            raise Unsupported(f"a constant of {x.numel()} numbers of type {x.dtype} made inside of the vector field")
        cells = tuple(literal(number, x.dtype) for number in x.flatten().tolist())
        view = torch.empty(x.shape, device="meta")
        if len(cells) <= SMALL:
            return Value(Cells(cells), view, x.dtype)
        name = self.name()
        self.lines.append(f"const {KINDS[x.dtype]} {name}[{len(cells)}] = {{{', '.join(cells)}}};")
        return Value(Block(name + "[{}]"), view, x.dtype)

    def _written(self, node: Node, values: dict[Node, Any]) -> Any:
        """Write the statements of a node; what goes wrong there is for other engines to do better."""
        try:
            return self._call(node, values)
        except Unsupported:
            raise
        except Exception as error:
            raise Unsupported(f"{node.format_node()}: {error}") from error

    def _call(self, node: Node, values: dict[Node, Any]) -> Any:
        target = node.target
        args, kwargs = self._looked_up(values, node.args), self._looked_up(values, node.kwargs)
        if isinstance(target, OpOverload) and not any(isinstance(x, Value) for x in tree_leaves((args, kwargs))):
            if torch.Tag.nondeterministic_seeded in target.tags:
                raise Unsupported(f"random numbers, {target}")
            return target(*args, **kwargs)
        if target not in WITH_CONSTANTS:
            args, kwargs = (tree_map_only(Tensor, self.held, x) for x in (args, kwargs))
        result = node.meta.get("val")
        if target is operator.getitem:
            return args[0][args[1]]
        if not isinstance(result, Tensor) and target not in MANY_VIEWS:
            raise Unsupported(f"the operation {target}")
        if isinstance(result, Tensor) and result.dtype not in KINDS:
            raise Unsupported(f"numbers of type {result.dtype}")
        target = RENAMED.get(target, target)
        if target in VIEWS:
            return self.view(target, args, kwargs)
        if target in COPIES:
            return args[0]
        if target in MANY_VIEWS:
            return [args[0].seen_as(view) for view in target(self.evaluated(args[0]).view, *args[1:], **kwargs)]
        if target in FILLED:
            number = FILLED[target]
            assert isinstance(result, Tensor)
            if number is None:
                number = args[0] if target == aten.scalar_tensor.default else args[-1 if len(args) > 1 else 0]
            return constant(number, result.dtype, result.shape)
        rule = RULES.get(target) or RULES.get(str(target))
        if rule is not None:
            return rule(self, node, result, args, kwargs)
        return self._elementwise(node, target, result, args, kwargs)

    # Elementwise operations

    def _elementwise(self, node: Node, target: Any, result: Any, args: Any, kwargs: Any) -> Value:
        operands = [x for x in args if isinstance(x, Value | int | float | bool)]
        if result.dtype == torch.bool and target not in COMPARISONS:
            if target not in LOGIC:
                raise Unsupported(f"{target} of truth values")
            return self.pointwise(node, result, operands, torch.bool, LOGIC[target])
        if target in (aten.add.Tensor, aten.sub.Tensor, aten.add.Scalar, aten.sub.Scalar):
            alpha, sign = kwargs.get("alpha", 1), "+" if "add" in str(target) else "-"
            scaled = (lambda b: b) if alpha == 1 else (lambda b: f"{literal(alpha, result.dtype)} * {b}")
            return self.pointwise(node, result, operands[:2], result.dtype, lambda a, b: f"({a} {sign} {scaled(b)})")
        if target in ARITHMETIC:
            return self.pointwise(node, result, operands, result.dtype, ARITHMETIC[target])
        if target in COMPARISONS:
            common = _common(operands)
            return self.pointwise(node, result, operands, common, COMPARISONS[target])
        raise Unsupported(f"the operation {target}")

    def pointwise(
        self, node: Node, result: Tensor, operands: Sequence[Any], dtype: Any, expression: Callable[..., str]
    ) -> Value:
        """Return the result of an elementwise operation on operands, each brought to a type and to one shape.

        Args:
            node: Its uses say whether the result may be worked out where it is used.
            result: Its shape and type.
            operands: Tensors and numbers.
            dtype: Type of the operands, one for all or one for each.
            expression: From expressions of the elements to one of the result.
        """
        dtypes = dtype if isinstance(dtype, list) else [dtype] * len(operands)
        shape = tuple(result.shape)
        spread = [self._spread(x, kind, shape) for x, kind in zip(operands, dtypes, strict=True)]
        if result.numel() <= SMALL:
            cells = [
                self.named(expression(*(at(index) for at in (self.reader(x, kind) for x, kind in spread))), result)
                for index in itertools.product(*map(range, shape))
            ]
            return Value(Cells(tuple(cells)), torch.empty(shape, device="meta"), result.dtype)
        readers = [self.reader(self.symbolic(x), kind) for x, kind in spread]

        def element(index: tuple[Index, ...]) -> str:
            return expression(*(at(index) for at in readers))

        value = Value(Formula(element), torch.empty(shape, device="meta"), result.dtype)
        return value if _used_once(node) else self.stored(value)

    def _spread(self, x: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> tuple[Value, torch.dtype]:
        value = x if isinstance(x, Value) else constant(x, dtype)
        if value.shape == shape:
            return value, dtype
        if isinstance(value.buffer, Formula):
            value = self.stored(value)
        return value.seen_as(value.view.expand(shape)), dtype

    @staticmethod
    def reader(value: Value, dtype: torch.dtype) -> Callable[[Sequence[Index]], str]:
        """Return the function from an index to the expression of an element of a certain type."""
        if KINDS[value.dtype] == KINDS[dtype]:
            return value.at
        return lambda index: f"to_{KINDS[dtype]}({value.at(index)})"

    # Where values live

    def name(self) -> str:
        """Return a new name."""
        return f"{self.prefix}{next(self._numbers)}"

    def named(self, expression: str, result: Tensor) -> str:
        """Write an expression into a new variable of the type of `result`, and return its name."""
        name = self.name()
        self.lines.append(f"const {KINDS[result.dtype]} {name} = {expression};")
        return name

    def symbolic(self, value: Value) -> Value:
        """Return a value that can be indexed by expressions."""
        return value if value.symbolic else self.stored(value)

    def stored(self, value: Value) -> Value:
        """Return a copy in an array of its own, in the usual order."""
        name, kind = self.name(), KINDS[value.dtype]
        view = torch.empty(value.shape, device="meta")
        self.lines.append(f"{kind} {name}[{max(view.numel(), 1)}];")
        if value.symbolic:
            self.loop(
                value.shape,
                lambda index: f"{name}[{flat_index(index, view.stride(), value.shape)}] = {value.at(index)};",
            )
        else:
            for index in itertools.product(*map(range, value.shape)):
                self.lines.append(f"{name}[{flat_index(index, view.stride(), value.shape)}] = {value.at(index)};")
        return Value(Block(name + "[{}]"), view, value.dtype)

    def loop(self, shape: Sequence[int], statement: Callable[[tuple[Index, ...]], str]) -> None:
        """Write nested loops over the axes that are longer than one."""
        index: list[Index] = []
        opened = 0
        for size in shape:
            if size == 1:
                index.append(0)
                continue
            i = self.name()
            index.append(i)
            self.lines.append(f"for (int {i} = 0; {i} < {size}; ++{i}) {{")
            opened += 1
        self.lines.append(statement(tuple(index)) + "}" * opened)

    def evaluated(self, value: Value) -> Value:
        """Return a value whose elements are worked out."""
        return self.stored(value) if isinstance(value.buffer, Formula) else value

    def view(self, target: Any, args: Any, kwargs: Any) -> Value:
        """Return the result of an operation that only looks at the same elements in another order."""
        value, rest = args[0], args[1:]
        rest = tuple(x.view if isinstance(x, Value) else x for x in rest)
        if target in (aten.view.default, aten._unsafe_view.default, aten.reshape.default):
            target = aten.view.default
        try:
            return value.seen_as(target(value.view, *rest, **kwargs))
        except (RuntimeError, Unsupported):
            value = self.stored(value)
            return value.seen_as(target(value.view, *rest, **kwargs))


def _common(operands: Sequence[Any]) -> torch.dtype:
    """Return the type in which torch compares."""
    first, second = (
        torch.empty(x.shape, dtype=x.dtype, device="meta") if isinstance(x, Value) else x for x in operands
    )
    return torch.result_type(first, second)


def _used_once(node: Node) -> bool:
    """Whether the only use of a result is by an operation that looks at each element once."""
    users = list(node.users)
    if len(users) != 1:
        return False
    user = users[0]
    if user.op == "output":
        return True
    if user.op != "call_function":
        return False
    if user.target in (aten.t.default, aten.transpose.int, aten.permute.default):
        return _used_once(user)
    known = user.target in ARITHMETIC or user.target in (aten.add.Tensor, aten.sub.Tensor, aten.where.self)
    mine, theirs = node.meta.get("val"), user.meta.get("val")
    return known and isinstance(mine, Tensor) and isinstance(theirs, Tensor) and mine.numel() == theirs.numel()
