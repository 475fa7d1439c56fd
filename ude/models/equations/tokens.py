"""Split a user's equation into tokens; everything that is not on the list is refused."""

from __future__ import annotations

import re
from typing import NamedTuple

from ude._checks import InputError

MAX_LENGTH = 2000
MAX_TOKENS = 800
MAX_NAME = 60

_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SYMBOLS = ("**", "+", "-", "*", "/", "^", "(", ")", ",", "?")
_WINDOW = 60


class Token(NamedTuple):
    """One word of an equation.

    Args:
        kind: "number", "name", "end", or the symbol itself.
        text: The characters.
        position: Index of the first character in the whole equation.
    """

    kind: str
    text: str
    position: int


def mistake(text: str, position: int, message: str) -> InputError:
    """Return an `InputError` with `message` and the place in `text` it is about."""
    start = max(0, position - _WINDOW)
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[start : position + _WINDOW])
    return InputError(f"{message}\n  {shown}\n  {' ' * (position - start)}^")


def tokenize(text: str, start: int = 0) -> list[Token]:
    """Return the tokens of `text[start:]`, the last of kind "end".

    Raises:
        InputError: If the text is too long, or holds a character that no equation needs.
    """
    if len(text) > MAX_LENGTH:
        raise InputError(f"An equation may have at most {MAX_LENGTH} characters, this one has {len(text)}. Split it.")
    tokens, position = [], start
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        token = _token_at(text, position)
        tokens.append(token)
        position += len(token.text)
        if len(tokens) > MAX_TOKENS:
            raise mistake(
                text, token.position, f"An equation may have at most {MAX_TOKENS} numbers, names and signs. Split it."
            )
    return [*tokens, Token("end", "", len(text))]


def _token_at(text: str, position: int) -> Token:
    number = _NUMBER.match(text, position)
    if number:
        return Token("number", number.group(), position)
    for symbol in _SYMBOLS:
        if text.startswith(symbol, position):
            return Token(symbol, symbol, position)
    end = position
    while end < len(text) and (text[end].isalnum() or text[end] == "_"):
        end += 1
    name = text[position:end]
    if not name.isidentifier():
        raise mistake(
            text, position, f"The character {_shown(text[position])} has no meaning in an equation. Remove it."
        )
    if name.startswith("__") or len(name) > MAX_NAME:
        raise mistake(
            text, position, f"A name has at most {MAX_NAME} characters and does not begin with two underscores."
        )
    return Token("name", name, position)


def _shown(character: str) -> str:
    return repr(character) if character.isprintable() else f"U+{ord(character):04X}"
