"""From equations as symbols to a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ude.models.mlp import MLP
from ude.models.program import compile_program
from ude.models.term import Term
from ude.models.ude import UDE

if TYPE_CHECKING:
    from ude.models.equations.system import EquationSystem
    from ude.models.parameters import Values
    from ude.models.ude import Unknowns


class EquationField:
    """The right-hand sides of a system as a function `known(t, y, p, u)` of a UDE.

    Args:
        system: The equations.

    Attributes:
        system: The equations.
    """

    def __init__(self, system: EquationSystem) -> None:
        from sympy import Dummy, Function

        self.system = system
        calls = system.calls()
        self._inputs = (*system.inputs, *system.parameters)
        variables = (*system.states, *system.inputs, *system.parameters, system.time)
        self._arguments = compile_program([x for _, arguments in calls for x in arguments], variables).on_tensors()
        # A term of all states in their order takes the state as it is.
        self._calls = tuple((term.name, len(x), tuple(map(str, x)) == system.states) for term, x in calls)
        results = {Function(name)(*x): Dummy(name) for term, x in calls for name in term.outputs}
        rates = [expression.xreplace(results) for expression in system.rhs]
        self._rates = compile_program(rates, (*variables, *results.values())).on_tensors()
        self._needs_time = any(str(s) == system.time for f in system.rhs for s in f.free_symbols)

    def __call__(self, t: float | Tensor, y: Tensor, p: Values, u: Unknowns) -> tuple[Any, ...]:
        """Return the rate of every state."""
        columns: list[Any] = [*y.unbind(-1), *(p[name] for name in self._inputs)]
        columns.append(torch.as_tensor(t).to(y) if self._needs_time else 0.0)
        arguments = self._arguments(columns)
        for name, count, whole in self._calls:
            taken, arguments = arguments[:count], arguments[count:]
            x = y if whole else torch.stack([column.expand(y.shape[:-1]) for column in taken], dim=-1)
            columns.extend(u[name](x).unbind(-1))
        return tuple(self._rates(columns))

    def __deepcopy__(self, memo: dict[int, Any]) -> EquationField:
        return self  # nothing in it ever changes

    def __str__(self) -> str:
        return str(self.system)


def build(
    system: EquationSystem,
    *,
    network: Callable[[int, int], nn.Module] | None = None,
    positive: Sequence[str] = (),
    generator: torch.Generator | None = None,
) -> UDE:
    """Return the model of a system; see `EquationSystem.to_ude`."""

    def default(inputs: int, outputs: int) -> MLP:
        return MLP(inputs, outputs, width=16, final_scale=0.1, generator=generator)

    make = network or default
    terms = {t.name: Term(make(len(t.inputs), len(t.outputs)), t.inputs, t.outputs) for t in system.terms}
    return UDE(
        EquationField(system),
        terms,
        states=system.states,
        parameters=system.parameters,
        positive=positive,
        inputs=system.inputs,
    )
