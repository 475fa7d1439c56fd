"""The parts of the generated code that are always the same: files of C++ with gaps."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from importlib import resources


@functools.cache
def _text(name: str) -> str:
    return (resources.files("ude.solve.native") / "code" / name).read_text()


def fill(name: str, **gaps: str | Iterable[str]) -> str:
    """Return a file with its gaps filled by statements: `@SAVING@` by `saving=`."""

    def filling(match: re.Match[str]) -> str:
        filled = gaps[match[1].lower()]
        return filled if isinstance(filled, str) else "\n".join(filled)

    return re.sub(r"@([A-Z]+)@", filling, _text(name))


def constants(**numbers: int) -> str:
    """Return definitions of numbers, known before everything else."""
    return "\n".join(f"constexpr int64_t {name} = {number};" for name, number in numbers.items())
