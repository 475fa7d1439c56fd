"""How numbers and names are written in a report."""

from __future__ import annotations

import math
from collections.abc import Sequence


def digits(value: float, significant: int = 4) -> str:
    """Write a number with a few significant digits, and a proper minus sign.

    Example:
        >>> digits(-0.000123456), digits(1887.95), digits(float("nan"))
        ('−0.0001235', '1888', 'not available')
    """
    if not math.isfinite(value):
        return "not available" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    return f"{value:.{significant}g}".replace("-", "−", 1 if value < 0 else 0)


def interval(low: float, high: float) -> str:
    """Write an interval as `low to high`.

    Example:
        >>> interval(-1.0, 2.5)
        '−1 to 2.5'
    """
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
