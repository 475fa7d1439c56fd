"""Run torch code on symbols instead of numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    import sympy

FUNCTIONS = {
    "exp": "exp",
    "log": "log",
    "sqrt": "sqrt",
    "sin": "sin",
    "cos": "cos",
    "tan": "tan",
    "sinh": "sinh",
    "cosh": "cosh",
    "tanh": "tanh",
    "abs": "Abs",
}
"""Elementwise functions of torch, and the sympy function of the same meaning."""

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "true_divide": operator.truediv,
    "pow": operator.pow,
    "rsub": lambda a, b: b - a,
    "rdiv": lambda a, b: b / a,
    "rpow": lambda a, b: b**a,
}
"""Elementwise functions of two arguments, by the name of torch's function or method."""


class Traced:
    """An expression, or a row of expressions that is indexed like the last axis of a tensor.

    Arithmetic, elementwise functions of torch and of tensors, `torch.stack`, `torch.cat`, `unbind` and indexing are
    followed; anything else raises `TypeError`.

    Args:
        value: An expression, or a list of them.

    Example:
        >>> import sympy, torch
        >>> y = Traced(list(sympy.symbols("a b")))
        >>> expressions_of(torch.stack([2 * y[..., 0], torch.exp(-y[..., 1])], -1))
        [2*a, exp(-b)]
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __getitem__(self, index: Any) -> Traced:
        if not isinstance(self.value, list):
            # An axis of length one that is added or taken away, as in `p.k[..., None]`.
            return self
        last = index[-1] if isinstance(index, tuple) else index
        if last is Ellipsis or last is None:
            return self
        return Traced([self.value[i] for i in last] if isinstance(last, list) else self.value[last])

    def __iter__(self) -> Any:
        return iter([Traced(v) for v in self.value])

    def unbind(self, dim: int = -1) -> tuple[Traced, ...]:
        """Return all entries."""
        return tuple(self)

    def __getattr__(self, name: str) -> Any:
        if name in FUNCTIONS:
            return lambda: _apply(FUNCTIONS[name], self)
        if name == "square":
            return lambda: self * self
        raise AttributeError(name)

    def __add__(self, other: Any) -> Traced:
        return _combine(operator.add, self, other)

    def __radd__(self, other: Any) -> Traced:
        return _combine(operator.add, other, self)

    def __sub__(self, other: Any) -> Traced:
        return _combine(operator.sub, self, other)

    def __rsub__(self, other: Any) -> Traced:
        return _combine(operator.sub, other, self)

    def __mul__(self, other: Any) -> Traced:
        return _combine(operator.mul, self, other)

    def __rmul__(self, other: Any) -> Traced:
        return _combine(operator.mul, other, self)

    def __truediv__(self, other: Any) -> Traced:
        return _combine(operator.truediv, self, other)

    def __rtruediv__(self, other: Any) -> Traced:
        return _combine(operator.truediv, other, self)

    def __pow__(self, other: Any) -> Traced:
        return _combine(operator.pow, self, other)

    def __rpow__(self, other: Any) -> Traced:
        return _combine(operator.pow, other, self)

    def __neg__(self) -> Traced:
        return _combine(operator.mul, -1, self)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Traced:
        """Follow a function of torch."""
        name = getattr(func, "__name__", "").strip("_")
        if name in ("stack", "cat"):
            return Traced([e for part in args[0] for e in expressions_of(part)])
        if name in FUNCTIONS:
            return _apply(FUNCTIONS[name], args[0])
        if name == "square":
            return args[0] * args[0]
        if name in ("zeros_like", "ones_like"):
            return _combine(lambda _, number: number, args[0], float(name == "ones_like"))
        if name in OPERATORS and len(args) == 2 and not kwargs:
            return _combine(OPERATORS[name], *args)
        raise TypeError(f"`{name}` has no symbolic form here.")


def expressions_of(value: Any) -> list[sympy.Expr]:
    """Return the expressions of what traced code has returned: something traced, or a tuple or list of such."""
    import sympy

    if isinstance(value, Traced):
        return list(value.value) if isinstance(value.value, list) else [value.value]
    if isinstance(value, tuple | list):
        return [e for part in value for e in expressions_of(part)]
    return [sympy.sympify(_number(value), strict=True)]


def _combine(function: Callable[[Any, Any], Any], a: Any, b: Any) -> Traced:
    left, right = (_number(x.value if isinstance(x, Traced) else x) for x in (a, b))
    rows = [x for x in (left, right) if isinstance(x, list)]
    if not rows:
        return Traced(function(left, right))
    size = max(map(len, rows))
    columns = [_spread(x, size) for x in (left, right)]
    return Traced([function(x, y) for x, y in zip(*columns, strict=True)])


def _spread(value: Any, size: int) -> Sequence[Any]:
    if not isinstance(value, list):
        return [value] * size
    return value * size if len(value) == 1 else value


def _apply(name: str, argument: Traced) -> Traced:
    import sympy

    function = getattr(sympy, name)
    if isinstance(argument.value, list):
        return Traced([function(v) for v in argument.value])
    return Traced(function(argument.value))


def _number(value: Any) -> Any:
    """Return a tensor as a number or a list of numbers, anything else as it is."""
    if isinstance(value, Tensor):
        return value.detach().tolist()
    return value
