"""Write sympy expressions as text that the parser reads back, and as LaTeX."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sympy


def to_text(expression: sympy.Expr, digits: int | None = None) -> str:
    """Return `expression` in the language of equations.

    Args:
        expression: What to write.
        digits: Significant digits of floating-point numbers; None for as many as identify the number.

    Example:
        >>> import sympy
        >>> to_text(1.25 * sympy.Symbol("x") ** 2 - 1, digits=2)
        '1.2*x**2 - 1'
    """
    return _printer()(digits).doprint(expression)


def to_latex(expression: sympy.Expr, digits: int | None = 4) -> str:
    """Return `expression` as LaTeX, with names of several letters upright."""
    import sympy

    names = {symbol: latex_name(symbol.name) for symbol in expression.atoms(sympy.Symbol)}
    rounded = {x: sympy.Float(x, digits) for x in expression.atoms(sympy.Float)} if digits else {}
    return sympy.latex(expression.xreplace(rounded), symbol_names=names)


def latex_name(name: str) -> str:
    """Return the name of a variable as LaTeX: Greek letters by name, subscripts after an underscore."""
    import sympy

    plain = sympy.latex(sympy.Symbol(name))
    return rf"\mathrm{{{name}}}" if plain == name and len(name) > 1 else plain


@functools.cache
def _printer() -> Any:
    # Made at first use, so that sympy is not imported with this module.
    from sympy.printing.str import StrPrinter

    class EquationPrinter(StrPrinter):
        def __init__(self, digits: int | None) -> None:
            super().__init__({"order": None})
            self.digits = digits

        def _print_Float(self, expr: Any) -> str:
            value = float(expr)
            return repr(value) if self.digits is None else f"{value:.{self.digits}g}"

        def _print_Abs(self, expr: Any) -> str:
            return f"abs({self._print(expr.args[0])})"

        def _print_Max(self, expr: Any) -> str:
            return f"max({', '.join(map(self._print, expr.args))})"

        def _print_Min(self, expr: Any) -> str:
            return f"min({', '.join(map(self._print, expr.args))})"

    return EquationPrinter
