"""Values of options that are more than a number or a name."""

from __future__ import annotations

import math

import click


class Assignment(click.ParamType):
    """`name=number`, such as `a=0.5`; with `optional` the number may be left out."""

    name = "name=value"

    def __init__(self, *, optional: bool = False) -> None:
        self.optional = optional

    def convert(
        self, value: str | tuple[str, float | None], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float | None]:
        """Split at the sign of equality."""
        if isinstance(value, tuple):
            return value
        name, equals, text = (part.strip() for part in value.partition("="))
        if name and not equals and self.optional:
            return name, None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not name or not math.isfinite(number):
            self.fail(f"expected a name and a number like a=0.5, got {value!r}.", param, ctx)
        return name, number
