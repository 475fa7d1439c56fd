"""Equations as a browser, LaTeX and a reader want them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ude.discovery import Discovery
from ude.models import EquationSystem, Expression
from ude.models.equations import to_text
from ude.report.page import Equation

if TYPE_CHECKING:
    import sympy

DIGITS = 4


def equations(discovery: Discovery) -> tuple[Equation, ...]:
    """The recovered equations for the head of a report."""
    states = discovery.model.states
    return tuple(_equation(name, rhs, name in states) for name, rhs in discovery.sympy.items())


def labels(system: EquationSystem) -> dict[str, str]:
    """Name every output of every unknown term by the equations that it stands in, by `"term.output"`.

    Example:
        >>> from ude.models import parse_equations
        >>> labels(parse_equations(["x' = ?(x, y)", "y' = -y"]))
        {'U.U_x': "unknown term in x'"}
    """
    from sympy.core.function import AppliedUndef

    named = {}
    for term in system.terms:
        for output in term.outputs:
            places = [
                f"{state}'"
                for state, rhs in zip(system.states, system.rhs, strict=True)
                if any(type(call).__name__ == output for call in rhs.atoms(AppliedUndef))
            ]
            label = f"unknown term in {' and '.join(places)}"
            named[f"{term.name}.{output}"] = label if output.startswith("U") else f"{output} ({label})"
    return named


def recovered_formulas(discovery: Discovery) -> dict[str, list[str]]:
    """Every recovered term as texts in `x1, x2, ...`, its inputs, one per output, with all digits.

    A term that has no symbolic form is left out.
    """
    import sympy

    formulas = {}
    for name in discovery.model.terms:
        module = discovery.module(name)
        if isinstance(module, Expression):
            places = {sympy.Symbol(old): sympy.Symbol(f"x{i + 1}") for i, old in enumerate(module.inputs)}
            expressions: tuple[Any, ...] = module.sympy
            formulas[name] = [to_text(expression.xreplace(places)) for expression in expressions]
    return formulas


def _equation(name: str, rhs: sympy.Expr, is_state: bool) -> Equation:
    rounded = _rounded(rhs)
    prime = "′" if is_state else ""
    text = f"{name}{prime} = {to_text(rounded, DIGITS)}"
    # sympy writes names into MathML as they are: only plain identifiers may pass.
    names = [name, *(str(symbol) for symbol in rounded.free_symbols)]
    if not all(part.isidentifier() for part in names) or _has_unknown(rounded):
        return Equation(text=text)
    from sympy import Symbol, mathml

    left, right = (
        mathml(x, printer="presentation", mul_symbol="dot", order="rev-lex") for x in (Symbol(name), rounded)
    )
    return Equation(text=text, mathml=f"<mrow>{left}<mo>{prime}</mo><mo>=</mo>{right}</mrow>")


def _has_unknown(expression: Any) -> bool:
    from sympy.core.function import AppliedUndef

    return bool(expression.atoms(AppliedUndef))


def _rounded(expression: Any) -> Any:
    import sympy

    numbers = {}
    for number in expression.atoms(sympy.Float):
        value = float(f"{float(number):.{DIGITS}g}")
        numbers[number] = (
            sympy.Integer(int(value)) if value.is_integer() and abs(value) < 1e6 else sympy.Float(value, DIGITS)
        )
    return expression.xreplace(numbers)
