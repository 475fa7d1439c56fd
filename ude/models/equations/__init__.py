"""Equations as a user writes them, read through a list of what is allowed."""

from ude.models.equations.printing import to_latex, to_text
from ude.models.equations.reading import parse_equations, parse_expression, parse_parameter
from ude.models.equations.system import EquationSystem, UnknownTerm

__all__ = [
    "EquationSystem",
    "UnknownTerm",
    "parse_equations",
    "parse_expression",
    "parse_parameter",
    "to_latex",
    "to_text",
]
