"""Functions of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import override

from ude.discovery.libraries.library import Library

if TYPE_CHECKING:
    import sympy

ELEMENTARY = ("Abs", "exp", "log", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "sign")
KNOWN = {getattr(torch, name.lower()): name for name in ELEMENTARY}
"""Torch functions of one argument, and the sympy function of the same meaning."""


@dataclass(frozen=True, slots=True)
class Custom(Library):
    """Functions of the user's own, each applied to every combination of as many inputs as it takes arguments.

    Args:
        functions: Elementwise torch functions of one or several tensors, such as `torch.exp` or
            `lambda x, y: x / (1 + y)`. Inputs enter in their order, each once; `.on(1, 0)` reverses them.
        templates: The name of each function with `{}` for its arguments, such as `"{}/(1 + {})"`; known for
            `torch.exp` and its like, otherwise `f1(x, y)`.
        expressions: For each function, the same function of sympy symbols. Known for `torch.exp` and its like,
            and for arithmetic, which works on symbols as it stands. Needed only for equations in symbols.

    Raises:
        ValueError: If the numbers of functions, templates and expressions differ.

    Example:
        >>> Custom((torch.exp, lambda x, y: torch.sin(x - y)), ("exp({})", "sin({} - {})")).names(["x", "y"])
        ['exp(x)', 'exp(y)', 'sin(x - y)']
    """

    functions: tuple[Callable[..., Tensor], ...]
    templates: tuple[str, ...] | None = None
    expressions: tuple[Callable[..., Any], ...] | None = None

    def __post_init__(self) -> None:
        for field, values in (("templates", self.templates), ("expressions", self.expressions)):
            if values is not None and len(values) != len(self.functions):
                raise ValueError(f"`{field}` must hold one entry per function ({len(self.functions)}), got {values}.")
        if not self.functions:
            raise ValueError("`functions` must hold at least one function.")

    @override
    def __call__(self, x: Tensor) -> Tensor:
        columns = x.unbind(-1)
        return torch.stack([function(*arguments) for _, function, arguments in self._calls(columns)], dim=-1)

    @override
    def names(self, input_names: Sequence[str]) -> list[str]:
        return [self._template(i).format(*arguments) for i, _, arguments in self._calls(input_names)]

    @override
    def sympy(self, input_symbols: Sequence[sympy.Expr]) -> list[sympy.Expr]:
        return [self._expression(i, arguments) for i, _, arguments in self._calls(input_symbols)]

    def _calls(self, inputs: Sequence[Any]) -> Iterator[tuple[int, Callable[..., Any], tuple[Any, ...]]]:
        """Position of the function, the function, and its arguments; one per feature."""
        for i, function in enumerate(self.functions):
            for arguments in combinations(inputs, _arity(function)):
                yield i, function, arguments

    def _template(self, i: int) -> str:
        if self.templates is not None:
            return self.templates[i]
        function = self.functions[i]
        default = f"f{i + 1}({', '.join(['{}'] * _arity(function))})"
        return f"{KNOWN[function].lower()}({{}})" if function in KNOWN else default

    def _expression(self, i: int, symbols: tuple[sympy.Expr, ...]) -> Any:
        import sympy

        function = self.functions[i]
        if self.expressions is not None:
            return self.expressions[i](*symbols)
        if function in KNOWN:
            return getattr(sympy, KNOWN[function])(*symbols)
        try:
            expression = function(*symbols)
        except Exception as error:
            raise ValueError(
                f"`{self._template(i)}` has no symbolic form: its torch function does not accept symbols ({error}). "
                "Pass `expressions=`, one function of sympy symbols per function."
            ) from error
        return sympy.sympify(expression, strict=True)


def _arity(function: Callable[..., Any]) -> int:
    """Return how many inputs a function takes."""
    return 1 if function in KNOWN else len(inspect.signature(function).parameters)
