"""Complete equations in symbols: the known part of a model with the recovered terms in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from ude.discovery.tracing import Traced, expressions_of
from ude.models import UDE, EquationSystem, Expression, Term, Values
from ude.models.from_equations import EquationField

if TYPE_CHECKING:
    import sympy


def complete_system(model: UDE, time: str) -> EquationSystem | None:
    """Return the equations of a model whose unknown terms are all `Expression`, with all numbers put in.

    The known part is evaluated on symbols. Where its code does not accept them (because it calls functions of torch,
    say) it appears as a function `known_x` of time and states. If it also calls the unknown terms itself, there is
    no way to write the equations down, and None is returned.

    Args:
        model: The model.
        time: Name of the time.
    """
    formulas = {name: _formulas(cast("Term", term)) for name, term in model.terms.items()}
    numbers = {name: float(value.detach()) for name, value in model.physical.values().items()}
    if isinstance(model.known, EquationField):
        system = model.known.system
        for name, expressions in formulas.items():
            system = system.substitute(name, expressions)
        return system.with_values(numbers)
    rhs = _right_hand_sides(model, formulas, numbers, time)
    return None if rhs is None else EquationSystem(states=model.states, rhs=rhs, inputs=model.inputs, time=time)


def _right_hand_sides(
    model: UDE, formulas: Mapping[str, tuple[sympy.Expr, ...]], numbers: Mapping[str, float], time: str
) -> tuple[sympy.Expr, ...] | None:
    import sympy

    symbols = {name: sympy.Symbol(name) for name in (*model.states, *model.inputs)} | {"t": sympy.Symbol(time)}
    state = [symbols[name] for name in model.states]
    values = {name: sympy.Float(x) for name, x in numbers.items()} | {name: symbols[name] for name in model.inputs}
    calls = {name: _call(cast("Term", model.terms[name]), formulas[name]) for name in formulas}
    arity = len(signature_of(model.known))
    traced = {name: Traced(value) for name, value in values.items()}
    arguments = (Traced(symbols["t"]), Traced(state), Values(cast("Any", traced)), Calls(calls))[:arity]
    try:
        rates = expressions_of(model.known(*arguments))
    except Exception:
        # Any error means that the code does something that has no symbols.
        if arity == 4:
            return None
        rates = [sympy.Function(f"known_{name}")(symbols["t"], *state) for name in model.states]
    rhs = dict(zip(model.states, rates, strict=True))
    if arity < 4:
        for name, call in calls.items():
            term = cast("Term", model.terms[name])
            for output, expression in zip(
                term.outputs, call([(symbols | values)[x] for x in term.inputs]), strict=True
            ):
                rhs[output] = rhs[output] + expression
    return tuple(rhs.values())


class Calls:
    """The recovered terms as a known part calls them: `u(x)`, or `u["name"](x)`."""

    def __init__(self, calls: Mapping[str, Callable[..., list[sympy.Expr]]]) -> None:
        self._calls = calls

    def __getitem__(self, name: str) -> Callable[[Any], Traced]:
        return lambda x: Traced(self._calls[name](expressions_of(x)))

    def __call__(self, x: Any) -> Traced:
        """Return the outputs of the only term."""
        (name,) = self._calls
        return self[name](x)


def signature_of(known: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that a UDE passes to its known part."""
    import inspect

    target = known.forward if isinstance(known, nn.Module) else known
    parameters = inspect.signature(cast("Any", target)).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in positional and p.default is p.empty]


def _formulas(term: Term) -> tuple[sympy.Expr, ...]:
    assert isinstance(term.network, Expression)
    return term.network.sympy


def _call(term: Term, formulas: Sequence[sympy.Expr]) -> Callable[..., list[sympy.Expr]]:
    import sympy

    symbols = [sympy.Symbol(name) for name in term.inputs]
    return lambda x: [cast("Any", f).xreplace(dict(zip(symbols, x, strict=True))) for f in formulas]
