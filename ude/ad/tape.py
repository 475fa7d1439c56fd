"""A computation as a list of nodes, recorded while it runs once, so that its power series can be continued.

The first call of a function with `Traced` arguments runs the user's code on the values and records what it did. Higher
coefficients then follow from the nodes alone, one order after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude.ad.lifted import Lifted, TensorFunction, as_in_eager
from ude.ad.linear_nodes import Bilinear, Layer, Linear, Matmul, Part, Reshaped, tensors_of
from ude.ad.nodes import Constant, Elementwise, Node, Pinned, Root, Scaled, Shifted, Sum, Times
from ude.ad.series import Pool, Rule, Series

MAX_SEARCH = 1000
"""Nodes of autograd's graph that are searched for the tensors that a function closes over."""


class Tape:
    """What was computed, in order.

    With `analytic` the values are kept from autograd, and every tensor with a gradient that enters from outside is
    captured, so that the nodes' own transposes can take autograd's place. Where that cannot be done completely, the
    tape says so by `is_sound`; nothing is dropped in silence.

    Args:
        order: The highest coefficient of any node.
        analytic: Prepare for the transpose.
    """

    __slots__ = (
        "_exposed", "_numbers", "_sound", "_stops", "_versions",
        "analytic", "captured", "is_recorded", "nodes", "order", "pool",
    )  # fmt: skip

    def __init__(self, order: int, *, analytic: bool) -> None:
        self.order = order
        self.analytic = analytic
        self.nodes: list[Node] = []
        self.pool = Pool()
        self.captured: list[Tensor] = []
        self.is_recorded = True  # nothing was done under `torch.no_grad`
        self._numbers: dict[int, int] = {}
        self._stops: dict[Any, Tensor] = {}
        self._exposed: dict[int, Tensor] = {}
        self._versions: dict[int, tuple[Tensor, int]] = {}
        self._sound = True

    def root(self, value: Tensor, series: Series) -> Traced:
        """Return a starting point of the computation."""
        node = Root()
        node.series = series
        return self._enter(node, value)

    def add(self, node: Node) -> Traced:
        """Compute the value of a node and append it."""
        node.series = node.build([operand.series for operand in node.operands], None)
        if not self.analytic:
            return self._enter(node, node.series.primal)
        self.is_recorded = self.is_recorded and torch.is_grad_enabled()
        if node.is_opaque:
            value = node.series.primal
            self._sound = self._sound and not value.requires_grad  # else something enters that we do not see
        else:
            with torch.no_grad():
                value = node.series.primal
        return self._enter(node, value)

    def add_linear(self, node: Linear) -> Any:
        """Append a function with one or several results."""
        if self.analytic:
            self._record(node)
        node.series = node.build([operand.series for operand in node.operands], None)
        result = node.series[0]
        if isinstance(result, Tensor):
            return self._enter(node, result)
        self._enter(node, tensors_of(result)[0])
        leaves, spec = pytree.tree_flatten(result)
        assert len(leaves) == len(tensors_of(result))  # functions return tensors or sequences of tensors
        parts = [self.add(Part(node, i)) for i in range(len(leaves))]
        node.parts = tuple(part.node.place for part in parts)
        return pytree.tree_unflatten(parts, spec)

    def _enter(self, node: Node, value: Tensor) -> Traced:
        node.place, node.shape, node.dtype, node.count = len(self.nodes), value.shape, value.dtype, 0
        self.nodes.append(node)
        return Traced(self, node)

    # Tensors from outside

    def capture(self, value: Any) -> int | None:
        """Return the number of a tensor from outside, None if it needs no gradient."""
        if not self.analytic or not isinstance(value, Tensor):
            return None
        if not value.requires_grad:
            self._watch(value)
            return None
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self.captured)
            self.captured.append(value)
        return self._numbers[id(value)]

    def notice(self, arguments: Sequence[Any]) -> None:
        """Remember tensors from outside: where a search of autograd's graph can stop, and what must not change."""
        for argument in arguments:
            if isinstance(argument, Tensor):
                if argument.requires_grad and argument.grad_fn is not None:
                    self._stops[argument.grad_fn, argument.output_nr] = argument
                elif not argument.requires_grad:
                    self._watch(argument)
            elif isinstance(argument, list | tuple):
                self.notice(argument)

    def _watch(self, value: Tensor) -> None:
        if self.analytic and not value.is_inference():  # tensors of the inference mode count no versions
            self._versions.setdefault(id(value), (value, value._version))

    def check_unchanged(self, *, replayed: bool) -> None:
        """Raise if a tensor without a gradient, which autograd does not keep for us, was changed since it was used.

        Args:
            replayed: Everything is read again, not only what the nodes' transposes need.
        """
        changed = {key: value for key, (value, version) in self._versions.items() if value._version != version}
        if not changed:
            return
        used = [node for node in self.nodes if node.count]
        # What a function closes over is not known, only what all functions were called with.
        closed = any(type(node) is Bilinear or (isinstance(node, Linear) and node.hidden) for node in used)
        needed = None if replayed or closed else {id(value) for node in used for value in node.reread()}
        for key, value in changed.items():
            if needed is None or key in needed:
                raise RuntimeError(
                    f"Expected the tensors of the vector field as they were when the series was computed, got one of "
                    f"shape {tuple(value.shape)} and {value.dtype} that was changed in place since: it is at version "
                    f"{value._version} instead of {self._versions[key][1]}. Call `backward` before the change, or "
                    "change a copy."
                )

    def forget(self) -> None:
        """Let go of the coefficients."""
        self.pool.forget()
        for node in self.nodes:
            if isinstance(node, Linear):
                node.first = None

    def expose(self, node: Node) -> Tensor:
        """Return the value of a node for use outside the table of rules.

        With `analytic`, should anything with a gradient be made of it, `is_sound` will find out.
        """
        if not self.analytic:
            return node.series.primal
        if node.place not in self._exposed:
            value = node.series.primal.detach()
            self._exposed[node.place] = (
                value.requires_grad_() if value.is_floating_point() or value.is_complex() else value
            )
        return self._exposed[node.place]

    def is_sound(self) -> bool:
        """Whether the nodes know of every way in which the result depends on anything with a gradient."""
        if self._sound and self._exposed:
            exposed = {id(value) for value in self._exposed.values()}
            for value in self.captured:
                if not self._sound:
                    break
                found = [value] if value.is_leaf else self._sources([value], {})
                self._sound = self._sound and not any(id(source) in exposed for source in found)
        self._exposed.clear()
        self._stops.clear()
        return self._sound

    def _record(self, node: Linear) -> None:
        """Evaluate a linear function under autograd, which will transpose it, and find what it closes over."""
        values = [argument.series.primal if isinstance(argument, Node) else argument for argument in node.arguments]
        node.leaves = [
            value.detach().requires_grad_() if isinstance(argument, Node) or number is not None else value
            for value, argument, number in zip(values, node.arguments, node.numbers, strict=True)
        ]
        self.is_recorded = self.is_recorded and torch.is_grad_enabled()
        with torch.enable_grad():
            result = node.function(*node.leaves)
        outputs = tensors_of(result)
        node.outputs = tuple(outputs)
        own = {id(leaf) for leaf in node.leaves}
        hidden = [source for source in self._sources(outputs, self._stops) if id(source) not in own]
        node.hidden = {cast(int, self.capture(tensor)): tensor for tensor in hidden}
        values = [output.detach() for output in outputs]
        node.first = (
            values[0] if isinstance(result, Tensor) else pytree.tree_unflatten(values, pytree.tree_structure(result))
        )

    def _sources(self, outputs: Sequence[Tensor], stops: dict[Any, Tensor]) -> list[Tensor]:
        """Return the tensors with a gradient from which others were computed."""
        found: dict[int, Tensor] = {}
        waiting: list[tuple[Any, int]] = [(x.grad_fn, x.output_nr) for x in outputs if x.grad_fn is not None]
        found.update({id(output): output for output in outputs if output.is_leaf and output.requires_grad})
        seen = set(waiting)
        while waiting:
            key = waiting.pop()
            source = stops.get(key) if stops else None
            source = getattr(key[0], "variable", None) if source is None else source
            if source is not None:
                found[id(source)] = source
                continue
            for following in key[0].next_functions:
                if following[0] is not None and following not in seen:
                    seen.add(following)
                    waiting.append(following)
            if len(seen) > MAX_SEARCH:
                self._sound = False
                return []
        return list(found.values())


class Traced(Lifted):
    """A tensor in a computation that a tape records."""

    __slots__ = ("node", "tape")

    def __init__(self, tape: Tape, node: Node) -> None:
        self.tape = tape
        self.node = node

    def __repr__(self) -> str:
        return f"Traced(shape {tuple(self.shape)}, {self.dtype})"

    @property
    def order(self) -> int:
        """The highest coefficient."""
        return self.tape.order

    @property
    def value(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensor itself."""
        return self.tape.expose(self.node)

    @property
    def shape(self) -> torch.Size:
        """Shape of the value."""
        return self.node.shape

    @property
    def ndim(self) -> int:
        """Number of axes of the value."""
        return len(self.node.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Number format."""
        return self.node.dtype

    def detach(self) -> Tensor:
        """Return the value without derivatives."""
        return self.node.series.primal.detach()

    def item(self) -> Any:
        """Return the value as a number, for control flow."""
        return self.detach().item()

    def __bool__(self) -> bool:
        return bool(self.detach())

    def __float__(self) -> float:
        return float(self.detach())

    def __int__(self) -> int:
        return int(self.detach())

    @classmethod
    def __torch_function__(
        cls, func: TensorFunction, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.compiler.is_compiling():
            func = as_in_eager(func, args)
        short = _SHORT.get(func)
        if short is not None and not kwargs:
            result = short(func, *args)
            if result is not None:
                return result
        tape = next((x.tape for x in args if isinstance(x, Traced)), None)
        if tape is None or tape.analytic:
            arguments = (*args, *(kwargs or {}).values())
            for tape in {id(x.tape): x.tape for x in _traced(arguments)}.values():
                tape.notice(arguments)
        return super().__torch_function__(func, types, args, kwargs)

    # The ways in which derivatives propagate

    def elementwise(self, rule: Rule) -> Traced:
        """Apply a function to every number."""
        return self.tape.add(Elementwise(rule, self.node))

    @classmethod
    def linear(cls, function: TensorFunction, operands: Sequence[Lifted | Tensor]) -> Any:
        """Apply a function that is linear in all operands together."""
        return _linear(function, None, operands)

    @classmethod
    def bilinear(cls, function: TensorFunction, a: Lifted, b: Lifted) -> Traced:
        """Apply a function that is linear in each of two operands."""
        first, second = cast(Traced, a), cast(Traced, b)
        return first.tape.add(Bilinear(function, first.node, second.node))

    def constant(self, value: Tensor) -> Traced:
        """Return a tensor that does not change with time."""
        return self.tape.add(Constant(value, self.tape.capture(value)))

    def pinned(self, value: Tensor) -> Traced:
        """Return the same derivatives with a more accurate evaluation of the value."""
        if not self.tape.analytic:
            return cast(Traced, super().pinned(value))
        return self.tape.add(Pinned(self.node, value.detach()))

    def times(self, other: Traced) -> Traced:
        """Multiply two of them number by number."""
        return self.tape.add(Times(self.node, other.node))

    def scaled(self, factor: Any) -> Traced:
        """Multiply by a tensor that does not change with time, or by a number."""
        return self.tape.add(Scaled(self.node, factor, self.tape.capture(factor)))

    def plus(self, other: Any, sign: float = 1.0) -> Traced:
        """Add `sign` times another, a tensor or a number."""
        if isinstance(other, Traced):
            return self.tape.add(Sum(self.node, other.node, sign))
        return self.tape.add(Shifted(self.node, other, sign, self.tape.capture(other)))

    def mapped(self, function: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor] | None = None) -> Any:
        """Apply an affine function; `derivative` is its linear part."""
        return _linear(function, derivative, [self])


def is_tensor(x: object) -> TypeGuard[Tensor]:
    """Whether something is a tensor, or stands in for one while derivatives propagate."""
    return isinstance(x, Tensor | Lifted)


def _traced(arguments: Sequence[Any]) -> list[Traced]:
    found: list[Traced] = []
    for argument in arguments:
        if isinstance(argument, Traced):
            found.append(argument)
        elif isinstance(argument, list | tuple):
            found += _traced(argument)
    return found


def _linear(function: TensorFunction, derivative: TensorFunction | None, operands: Sequence[Lifted | Tensor]) -> Any:
    tape = next(operand.tape for operand in operands if isinstance(operand, Traced))
    arguments = [operand.node if isinstance(operand, Traced) else cast(Tensor, operand) for operand in operands]
    return tape.add_linear(Linear(function, derivative, arguments, [tape.capture(argument) for argument in arguments]))


# Shorter ways for what is frequent; they return None where they do not apply


def _layer(_: TensorFunction, x: Any, weight: Any, bias: Any = None) -> Traced | None:
    if not isinstance(x, Traced) or isinstance(weight, Lifted) or isinstance(bias, Lifted) or weight.ndim != 2:
        return None
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        return None  # torch refuses to mix number formats
    tape = x.tape
    return tape.add(Layer(x.node, weight, bias, (tape.capture(weight), tape.capture(bias))))


def _matmul(_: TensorFunction, a: Any, b: Any) -> Traced | None:
    if not isinstance(a, Traced) or a.ndim < 2 or b.ndim < 2:
        return None
    if isinstance(b, Traced):
        return a.tape.add(Matmul(a.node, b.node))
    return None if b.ndim != 2 else _layer(_, a, b.mT)


def _reshaped(function: TensorFunction, x: Any, *arguments: Any) -> Traced | None:
    if not isinstance(x, Traced) or any(isinstance(argument, Tensor | Lifted | torch.dtype) for argument in arguments):
        return None
    return x.tape.add(Reshaped(lambda tensor: function(tensor, *arguments), x.node))


def _negated(_: TensorFunction, x: Any) -> Traced | None:
    return x.scaled(-1.0) if isinstance(x, Traced) else None


_RESHAPES = ("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze", "ravel")

_SHORT: dict[TensorFunction, Callable[..., Traced | None]] = {
    torch.nn.functional.linear: _layer,
    torch.matmul: _matmul,
    Tensor.matmul: _matmul,
    Tensor.__matmul__: _matmul,
    Tensor.neg: _negated,
    Tensor.__neg__: _negated,
    torch.neg: _negated,
    **{getattr(space, name): _reshaped for space in (torch, Tensor) for name in _RESHAPES if hasattr(space, name)},
}
