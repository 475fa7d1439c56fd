"""Formulas as flat lists of operations, run on tensors or on Python numbers without sympy."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ude.ad import is_tensor

if TYPE_CHECKING:
    import sympy

    Formula = sympy.Basic


class Step(NamedTuple):
    """One operation.

    Args:
        name: What to do: a function or operator, or "scaled" for `first + factor * second`.
        first: Register of the first argument.
        second: Register of the second argument; -1 if there is none.
        factor: Number for "scaled".
    """

    name: str
    first: int
    second: int = -1
    factor: float = 1.0


def _torch_extremum(pairwise: Callable[[Tensor, Tensor], Tensor], bound: str) -> Callable[[Any, Any], Tensor]:
    def extremum(a: Any, b: Any) -> Tensor:
        if is_tensor(a) and is_tensor(b):
            return pairwise(a, b)
        tensor, number = (a, b) if is_tensor(a) else (b, a)
        return tensor.clamp(**{bound: number})

    return extremum


_ELEMENTARY = ("exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "atan", "sqrt")
_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "pow": operator.pow,
    "neg": operator.neg,
}
TENSOR_OPERATIONS: dict[str, Callable[..., Any]] = {
    **_OPERATORS,
    **{name: getattr(torch, name) for name in _ELEMENTARY},
    "abs": torch.abs,
    "sign": torch.sign,
    "square": torch.square,
    "min": _torch_extremum(torch.minimum, "max"),
    "max": _torch_extremum(torch.maximum, "min"),
    "scaled": lambda a, b, factor: torch.add(a, b, alpha=factor),
}
NUMBER_OPERATIONS: dict[str, Callable[..., Any]] = {
    **_OPERATORS,
    **{name: getattr(math, name) for name in _ELEMENTARY},
    "abs": abs,
    "sign": lambda x: math.copysign(1.0, x) if x else 0.0,
    "square": lambda x: x * x,
    "min": min,
    "max": max,
    "scaled": lambda a, b, factor: a + factor * b,
}


@dataclass(frozen=True, slots=True)
class Program:
    """A list of formulas as operations on numbered registers.

    The first registers hold the variables, the next ones the constants, and each step adds one.

    Args:
        variables: Names of the variables, in the order of the first registers.
        constants: Numbers of the next registers.
        steps: Operations, in order.
        outputs: Register of each formula.
    """

    variables: tuple[str, ...]
    constants: tuple[float, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    def on_tensors(self) -> Callable[[Sequence[Any]], list[Any]]:
        """Return the formulas as a function of tensors that broadcast; a constant formula gives a number."""
        return self._function(TENSOR_OPERATIONS)

    def on_numbers(self) -> Callable[[Sequence[float]], list[float]]:
        """Return the formulas as a function of a list of Python numbers."""
        return self._function(NUMBER_OPERATIONS)

    def _function(self, operations: dict[str, Callable[..., Any]]) -> Callable[[Sequence[Any]], list[Any]]:
        def resolved(step: Step) -> tuple[Callable[..., Any], int, int]:
            f = operations[step.name]
            return (partial(f, factor=step.factor) if step.name == "scaled" else f), step.first, step.second

        steps, constants, outputs = tuple(map(resolved, self.steps)), self.constants, self.outputs

        def evaluate(values: Sequence[Any]) -> list[Any]:
            registers = [*values, *constants]
            for f, i, j in steps:
                registers.append(f(registers[i]) if j < 0 else f(registers[i], registers[j]))
            return [registers[k] for k in outputs]

        return evaluate


def compile_program(expressions: Sequence[Formula], variables: Sequence[Any]) -> Program:
    """Return a program for these expressions; a part that occurs twice is computed once.

    Args:
        expressions: sympy expressions of the functions that equations may call.
        variables: Names, or symbols, of the variables.

    Raises:
        ValueError: If an expression holds another symbol or a function that cannot be evaluated.

    Example:
        >>> import sympy
        >>> x, y = sympy.symbols("x y")
        >>> compile_program([x * y + 2, 3 * x * y], ["x", "y"]).on_numbers()([2.0, 5.0])
        [12.0, 30.0]
    """
    import sympy

    fresh = (sympy.Dummy() for _ in count())
    shared, reduced = sympy.cse(list(expressions), symbols=fresh, order="canonical", list=True)
    compiler = _Compiler(variables)
    for symbol, expression in shared:
        compiler.known[symbol] = compiler.emit(expression)
    return compiler.finish([compiler.emit(expression) for expression in reduced])


class _Place(NamedTuple):
    """A register before all constants are counted: the number of a variable, a constant or a step."""

    kind: str
    number: int


class _Compiler:
    """Turns expressions into steps."""

    def __init__(self, variables: Sequence[Any]) -> None:
        import sympy

        symbols = [sympy.Symbol(v) if isinstance(v, str) else v for v in variables]
        self.names = tuple(symbol.name for symbol in symbols)
        self.known: dict[Any, _Place] = {symbol: _Place("variable", i) for i, symbol in enumerate(symbols)}
        self.constants: dict[float, _Place] = {}
        self.steps: list[tuple[str, _Place, _Place | None, float]] = []

    def finish(self, outputs: list[_Place]) -> Program:
        """Number the registers."""
        offset = {"variable": 0, "constant": len(self.names), "step": len(self.names) + len(self.constants)}

        def register(place: _Place | None) -> int:
            return -1 if place is None else offset[place.kind] + place.number

        steps = tuple(Step(name, register(i), register(j), factor) for name, i, j, factor in self.steps)
        return Program(self.names, tuple(self.constants), steps, tuple(map(register, outputs)))

    def emit(self, expression: Any) -> _Place:
        """Add the steps for `expression` and return where its value will be."""
        if expression in self.known:
            return self.known[expression]
        if expression.is_number:
            return self.constant(expression)
        if expression.is_Add:
            return self.sum(expression)
        if expression.is_Mul:
            return self.product(expression)
        if expression.is_Pow:
            return self.power(*expression.as_base_exp())
        if expression.is_Symbol:
            raise ValueError(f"Unknown symbol {expression.name!r}; the variables are {self.names}.")
        return self.function(expression)

    def constant(self, value: Any) -> _Place:
        return self.constants.setdefault(float(value), _Place("constant", len(self.constants)))

    def step(self, name: str, first: _Place, second: _Place | None = None, factor: float = 1.0) -> _Place:
        self.steps.append((name, first, second, factor))
        return _Place("step", len(self.steps) - 1)

    def chain(self, name: str, places: list[_Place]) -> _Place:
        total = places[0]
        for place in places[1:]:
            total = self.step(name, total, place)
        return total

    def sum(self, expression: Any) -> _Place:
        numbers = [term for term in expression.args if term.is_number]
        terms = [term.as_coeff_Mul() for term in expression.args if not term.is_number]
        # A term without a factor goes first, where it costs no operation.
        terms.sort(key=lambda term: term[0] != 1)
        factor, rest = terms[0]
        total = self.emit(rest) if factor == 1 else self.emit(factor * rest)
        for factor, rest in terms[1:]:
            if abs(factor) == 1:
                total = self.step("add" if factor == 1 else "sub", total, self.emit(rest))
            else:
                total = self.step("scaled", total, self.emit(rest), float(factor))
        return self.step("add", total, self.constant(sum(numbers))) if numbers else total

    def product(self, expression: Any) -> _Place:
        factor, rest = expression.as_coeff_Mul()
        above, below = [], []
        for part in rest.as_ordered_factors():
            base, exponent = part.as_base_exp() if part.is_Pow else (part, None)
            if exponent is not None and exponent.is_number and exponent.is_negative:
                below.append(self.power(base, -exponent))
            else:
                above.append(self.emit(part))
        if not above:
            return self.step("div", self.constant(factor), self.chain("mul", below))
        value = self.chain("mul", above)
        if below:
            value = self.step("div", value, self.chain("mul", below))
        if factor == -1:
            return self.step("neg", value)
        return value if factor == 1 else self.step("mul", value, self.constant(factor))

    def power(self, base: Any, exponent: Any) -> _Place:
        if exponent.is_number and exponent.is_negative:
            return self.step("div", self.constant(1.0), self.power(base, -exponent))
        if exponent == 1:
            return self.emit(base)
        special = {2.0: "square", 0.5: "sqrt"}.get(float(exponent)) if exponent.is_number else None
        if special:
            return self.step(special, self.emit(base))
        return self.step("pow", self.emit(base), self.emit(exponent))

    def function(self, expression: Any) -> _Place:
        name, arguments = expression.func.__name__.lower(), expression.args
        if name in ("re", "conjugate"):  # sympy may wrap what it does not know to be real
            return self.emit(arguments[0])
        if name == "cot":
            return self.step("div", self.constant(1.0), self.step("tan", self.emit(arguments[0])))
        if name in ("min", "max"):
            return self.chain(name, sorted(map(self.emit, arguments), key=lambda place: place.kind == "constant"))
        if name not in TENSOR_OPERATIONS or len(arguments) != 1:
            raise ValueError(f"There is no torch function for {expression.func.__name__!r} in {expression}.")
        return self.step(name, self.emit(arguments[0]))
