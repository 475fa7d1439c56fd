"""How numbers and names are written in a report."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def digits(value: float, significant: int = 4) -> str:
    """Write a number with a few significant digits, and a proper minus sign.

    Example:
        >>> digits(-0.0123456), digits(1887.95), digits(2.377e-11), digits(float("nan"))
        ('−0.01235', '1888', '2.377×10⁻¹¹', 'not available')
    """
    if not math.isfinite(value):
        return "not available" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    mantissa, _, exponent = f"{value:.{significant}g}".replace("-", "−", 1 if value < 0 else 0).partition("e")
    return mantissa + (f"×10{str(int(exponent)).translate(_RAISED)}" if exponent else "")


def interval(low: float, high: float) -> str:
    """Write an interval as `low to high`, with as many digits as tell the ends apart.

    Example:
        >>> interval(-1.0, 2.5), interval(0.699998, 0.700002)
        ('−1 to 2.5', '0.699998 to 0.700002')
    """
    for significant in range(4, 10):
        if low == high or digits(low, significant) != digits(high, significant):
            return f"{digits(low, significant)} to {digits(high, significant)}"
    return f"{digits(low)} to {digits(high)}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun.

    Example:
        >>> count(1, "state"), count(21, "row")
        ('1 state', '21 rows')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Sequence[str], *, longest: int = 6) -> str:
    """Write names as a list in words, cut short after some.

    Example:
        >>> listed(["hare", "lynx"]), listed(list("abcdefgh"), longest=2)
        ('hare and lynx', 'a, b and 6 more')
    """
    if len(names) > longest:
        return f"{', '.join(names[:longest])} and {len(names) - longest} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def pretty(feature: str) -> str:
    """Write the name of a library function with dots and raised exponents.

    Example:
        >>> pretty("hare lynx^2"), pretty("x y/(2 + x^2)")
        ('hare·lynx²', 'x·y/(2 + x²)')
    """
    return re.sub(r"(?<=[\w)²-⁹]) (?=\w)", "·", raised(feature))


def raised(text: str) -> str:
    """Write exponents `^2` as raised digits."""
    return re.sub(r"\^(\d+)", lambda found: found[1].translate(_RAISED), text)


def formula(features: Sequence[str], coefficients: Sequence[float]) -> str:
    """Write a weighted sum of library functions.

    Example:
        >>> formula(["x y", "1"], [-0.9, 2.0])
        '−0.9 x·y + 2'
    """
    parts = [f"{digits(c)} {pretty(f)}".removesuffix(" 1") for f, c in zip(features, coefficients, strict=True)]
    return " + ".join(parts).replace("+ −", "− ") or "0"


def sentence(text: str) -> str:
    """Begin with a capital letter, unless the first word is a symbol.

    Example:
        >>> sentence("unknown term in x'"), sentence("a"), sentence("hare(0)")
        ("Unknown term in x'", 'a', 'hare(0)')
    """
    return text[0].upper() + text[1:] if text.startswith("unknown ") else text
