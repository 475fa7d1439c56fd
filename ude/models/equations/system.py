"""A system of differential equations as symbols."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ude.models.equations.printing import latex_name, to_latex, to_text
from ude.models.parameters import Parameter

if TYPE_CHECKING:
    import sympy
    import torch
    from torch import nn

    from ude.models.ude import UDE


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownTerm:
    """A term whose formula is not known: one network, whose outputs are functions in the equations.

    Args:
        name: Name of the term.
        inputs: Names of its inputs: the text of its arguments, or `x1, x2, ...` if it is called with several.
        outputs: Names of its outputs, each a function in the right-hand sides.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EquationSystem:
    """Equations $dy_i/dt = f_i$ as symbols: what `parse_equations` returns.

    Args:
        states: Names of the states.
        rhs: Right-hand side of each state, a sympy expression in the symbols of states, inputs, time and
            parameters. An unknown term is an undefined function, `U_hare(hare, lynx)`.
        parameters: How each parameter starts.
        terms: The unknown terms.
        inputs: Names of the exogenous inputs that occur.
        time: Name of the time.
    """

    states: tuple[str, ...]
    rhs: tuple[sympy.Expr, ...]
    parameters: dict[str, Parameter] = field(default_factory=dict)
    terms: tuple[UnknownTerm, ...] = ()
    inputs: tuple[str, ...] = ()
    time: str = "t"

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of states, inputs, time and parameters, in this order."""
        return (*self.states, *self.inputs, self.time, *self.parameters)

    def calls(self) -> list[tuple[UnknownTerm, tuple[sympy.Expr, ...]]]:
        """Return every unknown term with each different list of arguments it is called with."""
        from sympy.core.function import AppliedUndef

        found: dict[tuple[str, tuple[sympy.Expr, ...]], None] = {}
        owner = {output: term for term in self.terms for output in term.outputs}
        for expression in self.rhs:
            calls: Any = sorted(expression.atoms(AppliedUndef), key=str)
            for call in calls:
                found[owner[call.func.__name__].name, call.args] = None
        named = {term.name: term for term in self.terms}
        return [(named[name], arguments) for name, arguments in found]

    def substitute(self, name: str, expressions: Sequence[sympy.Expr]) -> EquationSystem:
        """Return the system with formulas in the place of an unknown term.

        Args:
            name: Name of the term.
            expressions: One formula per output of the term, in symbols named like the term's `inputs`. A symbol
                in them that is new to the system becomes a parameter that starts at 1.
        """
        import sympy

        term = next((term for term in self.terms if term.name == name), None)
        if term is None or len(expressions) != len(term.outputs):
            raise ValueError(
                f"Expected the name of an unknown term and one expression per output, got {name!r} and "
                f"{len(expressions)} expression(s); the terms are {self.terms}."
            )
        formulas = dict(zip(term.outputs, expressions, strict=True))
        symbols = [sympy.Symbol(x) for x in term.inputs]

        def formula(call: Any) -> Any:
            return formulas[call.func.__name__].xreplace(dict(zip(symbols, call.args, strict=True)))

        rhs = tuple(_replace_calls(expression, formulas, formula) for expression in self.rhs)
        new = sorted({x.name for e in rhs for x in e.free_symbols if isinstance(x, sympy.Symbol)} - {*self.variables})
        parameters = self.parameters | {x: Parameter() for x in new}
        return replace(self, rhs=rhs, parameters=parameters, terms=tuple(t for t in self.terms if t is not term))

    def with_values(self, values: Mapping[str, float]) -> EquationSystem:
        """Return the system with numbers in the place of these parameters."""
        import sympy

        numbers = {sympy.Symbol(name): sympy.Float(value) for name, value in values.items()}
        return replace(
            self,
            rhs=tuple(expression.xreplace(numbers) for expression in self.rhs),
            parameters={name: spec for name, spec in self.parameters.items() if name not in values},
        )

    def with_initial(self, values: Mapping[str, float]) -> EquationSystem:
        """Return the system with other initial values of these parameters."""
        changed = {name: replace(self.parameters[name], initial=float(value)) for name, value in values.items()}
        return replace(self, parameters=self.parameters | changed)

    def to_function(self, inputs: Callable[[float], Sequence[float]] | None = None) -> Callable[..., list[float]]:
        """Return the right-hand side as a fast function of Python numbers, `f(t, y) -> list`, for SciPy's solvers.

        Parameters have their initial values; see `with_initial`.

        Args:
            inputs: Values of the exogenous inputs at a time.

        Raises:
            ValueError: If the system has unknown terms, or inputs and none are given.
        """
        from ude.models.program import compile_program

        if self.terms or (self.inputs and inputs is None):
            raise ValueError(
                f"Only a system without unknown terms and with all inputs is a function of numbers; this one has the "
                f"terms {tuple(t.name for t in self.terms)} and the inputs {self.inputs}."
            )
        run = compile_program(self.rhs, self.variables).on_numbers()
        constants = [spec.initial for spec in self.parameters.values()]
        if inputs is None:
            return lambda t, y: run([*y, t, *constants])
        return lambda t, y: run([*y, *inputs(t), t, *constants])

    def to_ude(
        self,
        *,
        network: Callable[[int, int], nn.Module] | None = None,
        positive: Sequence[str] = (),
        generator: torch.Generator | None = None,
    ) -> UDE:
        """Return the system as a model, with a network for every unknown term.

        Args:
            network: Makes a network from its numbers of inputs and outputs; a small `MLP` that starts near zero
                by default.
            positive: Names of the states to keep positive.
            generator: Source of the initial weights of the default network.
        """
        from ude.models.from_equations import build

        return build(self, network=network, positive=positive, generator=generator)

    def to_dict(self) -> dict[str, Any]:
        """Return the system as plain values that JSON can hold."""
        return {
            "states": list(self.states),
            "equations": [to_text(expression) for expression in self.rhs],
            "parameters": {name: asdict(spec) for name, spec in self.parameters.items()},
            "terms": [asdict(term) for term in self.terms],
            "inputs": list(self.inputs),
            "time": self.time,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EquationSystem:
        """Return the system that `to_dict` described; its texts are parsed, never evaluated.

        Raises:
            InputError: If an entry is missing or cannot be read.
        """
        from ude.models.equations.reading import system_from_dict

        return system_from_dict(values)

    def texts(self, digits: int | None = 4) -> list[str]:
        """Return one line of text per equation, with this many significant digits (None for all)."""
        return [f"{x}' = {to_text(f, digits)}" for x, f in zip(self.states, self.rhs, strict=True)]

    def latex(self, digits: int | None = 4) -> str:
        """Return the system as a LaTeX `aligned` environment."""
        time = latex_name(self.time)
        lines = [
            rf"\frac{{d{latex_name(x)}}}{{d{time}}} &= {to_latex(f, digits)}"
            for x, f in zip(self.states, self.rhs, strict=True)
        ]
        return r"\begin{aligned}" + "\n" + " \\\\\n".join(lines) + "\n" + r"\end{aligned}"

    def __str__(self) -> str:
        return "\n".join(self.texts())


def _replace_calls(expression: Any, names: Mapping[str, Any], formula: Callable[[Any], sympy.Expr]) -> sympy.Expr:
    from sympy.core.function import AppliedUndef

    calls = [call for call in expression.atoms(AppliedUndef) if call.func.__name__ in names]
    return expression.xreplace({call: formula(call) for call in calls})
