"""Read the right-hand side of an equation into a sympy expression; nothing is ever evaluated as Python."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ude._checks import InputError
from ude.models.equations import algebra, functions
from ude.models.equations.tokens import Token, mistake, tokenize

if TYPE_CHECKING:
    import sympy

MAX_DEPTH = 50

_BINARY: dict[str, tuple[int, Callable[[sympy.Expr, sympy.Expr], sympy.Expr]]] = {
    "+": (10, algebra.add),
    "-": (10, lambda a, b: algebra.add(a, algebra.multiply(algebra.number(-1), b))),
    "*": (20, algebra.multiply),
    "/": (20, algebra.divide),
    "^": (40, algebra.power),
    "**": (40, algebra.power),
}
_SIGN = 30  # -x^2 is -(x^2), and 2^-x is allowed

Unknown = Callable[[str | None, tuple["sympy.Expr", ...], Token], "sympy.Expr"]
"""Makes the expression of an unknown term from its name, its arguments and its place."""


class Parser:
    """Recursive-descent parser with operator precedences, over a list of tokens.

    Args:
        text: The whole equation, for messages.
        start: Where the expression begins in it.
        unknown: What to do with an unknown term `?(x, y)` or `?name(x, y)`; None if there may be none.
        applied: Names that stand for unknown terms and are called like functions, with their number of arguments.
    """

    def __init__(
        self,
        text: str,
        start: int = 0,
        unknown: Unknown | None = None,
        applied: Mapping[str, int] | None = None,
    ) -> None:
        self.text, self.unknown, self.applied = text, unknown, applied or {}
        self.tokens, self.at, self.depth = tokenize(text, start), 0, 0
        self.names: dict[str, Token] = {}
        self.within_unknown = False

    def parse(self) -> sympy.Expr:
        """Return the expression that the tokens spell, all of them."""
        value = self._expression(0)
        token = self._peek()
        if token.kind == ")":
            raise self._mistake(token, "This closing parenthesis was never opened. Remove it, or add the opening one.")
        if token.kind == ",":
            raise self._mistake(
                token, "A comma only separates the arguments of a function. Write decimals with a point."
            )
        if token.kind != "end":
            raise self._mistake(token, f"Expected an operator before {token.text!r}. Write products with `*`.")
        return self._build(self.tokens[0], algebra.checked, value)

    def _expression(self, minimum: int) -> sympy.Expr:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._mistake(
                self._peek(), f"This is nested more than {MAX_DEPTH} levels deep. Write it with fewer parentheses."
            )
        left = self._operand()
        while (operator := self._peek()).kind in _BINARY and _BINARY[operator.kind][0] >= minimum:
            self.at += 1
            binding, combine = _BINARY[operator.kind]
            # Powers group from the right: what follows may be a power again, or carry a sign.
            right = self._expression(binding if binding == _BINARY["^"][0] else binding + 1)
            left = self._build(operator, combine, left, right)
        self.depth -= 1
        return left

    def _operand(self) -> sympy.Expr:
        token = self._next()
        if token.kind == "number":
            return self._build(token, algebra.parse_number, token.text)
        if token.kind in ("+", "-"):
            value = self._expression(_SIGN)
            return self._build(token, algebra.multiply, algebra.number(1 if token.kind == "+" else -1), value)
        if token.kind == "(":
            value = self._expression(0)
            self._close(token)
            return value
        if token.kind == "name":
            return self._call(token) if self._peek().kind == "(" else self._symbol(token)
        if token.kind == "?":
            return self._unknown(token)
        ends = "The equation ends too early" if token.kind == "end" else f"Found {token.text!r}"
        raise self._mistake(token, f"{ends}; expected a number, a name, a function or `?(...)` here.")

    def _symbol(self, token: Token) -> sympy.Expr:
        import sympy

        if token.text in functions.NAMES:
            raise self._mistake(token, f"{token.text!r} is a function. Call it as `{functions.signature(token.text)}`.")
        if token.text == "pi":
            return sympy.pi
        self.names.setdefault(token.text, token)
        return sympy.Symbol(token.text)

    def _call(self, token: Token) -> sympy.Expr:
        import sympy

        if token.text in self.applied:
            arguments = self._arguments()
            if len(arguments) != self.applied[token.text]:
                raise self._mistake(
                    token, f"{token.text!r} takes {self.applied[token.text]} argument(s), got {len(arguments)}."
                )
            return sympy.Function(token.text)(*arguments)
        if token.text not in functions.NAMES:
            hint = nearest(token.text, functions.NAMES)
            raise self._mistake(
                token,
                f"{token.text!r} is not a function that equations may call{hint}. Write products with `*`, and unknown "
                f"terms with a question mark. The functions are {', '.join(functions.NAMES)}.",
            )
        arguments = self._arguments()
        if not functions.accepts(token.text, len(arguments)):
            raise self._mistake(
                token, f"Expected `{functions.signature(token.text)}`, got {len(arguments)} argument(s)."
            )
        return self._build(token, functions.apply, token.text, arguments)

    def _unknown(self, token: Token) -> sympy.Expr:
        if self.unknown is None:
            raise self._mistake(token, "An unknown term `?` has no place here. Write an expression.")
        if self.within_unknown:
            raise self._mistake(
                token, "An unknown term cannot be the argument of another. Use one `?` with all the inputs."
            )
        name = self._next().text if self._peek().kind == "name" else None
        if self._peek().kind != "(":
            raise self._mistake(
                token, "Say what the unknown term depends on: `?(x, y)`, with the names of states or inputs."
            )
        self.within_unknown = True
        arguments = self._arguments()
        self.within_unknown = False
        if not arguments or not all(argument.free_symbols for argument in arguments):
            raise self._mistake(token, "Every argument of an unknown term must contain a state, an input or the time.")
        return self.unknown(name, tuple(arguments), token)

    def _arguments(self) -> list[sympy.Expr]:
        opening = self._next()
        if self._peek().kind == ")":
            self.at += 1
            return []
        arguments = [self._expression(0)]
        while self._peek().kind == ",":
            self.at += 1
            arguments.append(self._expression(0))
        self._close(opening)
        return arguments

    def _close(self, opening: Token) -> None:
        token = self._next()
        if token.kind == "end":
            raise self._mistake(opening, "This parenthesis is never closed. Add the closing one.")
        if token.kind != ")":
            raise self._mistake(token, f"Expected an operator or a closing parenthesis before {token.text!r}.")

    def _build(self, token: Token, make: Callable[..., sympy.Expr], *arguments: object) -> sympy.Expr:
        try:
            return make(*arguments)
        except algebra.AlgebraError as error:
            raise self._mistake(token, str(error)) from error

    def _peek(self) -> Token:
        return self.tokens[self.at]

    def _next(self) -> Token:
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def _mistake(self, token: Token, message: str) -> InputError:
        return mistake(self.text, token.position, message)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the most similar known name, empty if there is none."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
