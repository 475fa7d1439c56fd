"""Costs of solves that torchsde made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ude.regularize.attached import Attached, costs_of
from ude.regularize.energy import JacobianFrobenius, KineticEnergy, TaylorEnergy, TrajectoryIntegral
from ude.regularize.nodes import Nodes
from ude.regularize.regularizer import Regularizer
from ude.regularize.repeated import Form
from ude.regularize.replaced import replaced
from ude.regularize.reservoir import Reservoir
from ude.regularize.terms import terms_of

METHODS = ("f", "f_and_g", "f_and_g_prod")
"""torchsde's names of the functions that evaluate the drift, alone or together with the diffusion."""


@dataclass(slots=True)
class Calls:
    """Calls of the drift.

    Args:
        drawn: Time and state of some of them.
        first: Earliest time.
        last: Latest time.
        before: Time and state of the last one.
    """

    drawn: Reservoir[tuple[Tensor, Tensor]]
    first: float = float("inf")
    last: float = -float("inf")
    before: tuple[float, Any] = (float("nan"), None)

    def hear(self, t: Any, y: Tensor) -> None:
        """Hear of a call."""
        now = float(t)
        # torchsde looks at the shape of the drift before it solves: the first step calls it there once more.
        if now == self.first and self.before[0] == now and self.before[1] is y:
            self.before = (now, None)
            return
        self.before = (now, y)
        self.first, self.last = min(self.first, now), max(self.last, now)
        self.drawn.offer((torch.as_tensor(t).detach(), y))


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedDrift(Attached):
    """The cost of solves by torchsde, from some calls of the drift.

    Args:
        cost: The regularizer.
        drift: The user's drift.
        calls: Calls of it.
    """

    cost: Regularizer
    drift: Callable[[Tensor, Tensor], Tensor]
    calls: Calls

    def value(self) -> Tensor:
        """Return the mean over the calls drawn, times the time between the first and the last call."""
        kept = self.calls.drawn.kept
        if not kept:
            raise ValueError(
                "No call of the drift was heard. Solve inside of the `with` block, with the very `sde` that was "
                f"attached to; its drift must be one of {', '.join(METHODS)}."
            )
        form = Form.of(kept[0][1])
        y = torch.stack([form.flatten(state) for _, state in kept])
        t = torch.stack([time.to(y.detach().real).reshape(1) for time, _ in kept])
        weight = torch.full_like(t, (self.calls.last - self.calls.first) / len(kept))
        costs = []
        for factor, term in terms_of(self.cost):
            assert isinstance(term, TrajectoryIntegral)  # as was checked
            costs.append(factor * term.over(form.bind(self.drift), Nodes(t, y.detach() if term.detach else y, weight)))
        return self.cost.checked(torch.stack(costs).sum())

    @property
    def nfe(self) -> int:
        """Calls of the drift."""
        return self.calls.drawn.seen


@contextmanager
def attach_to_drift(
    sde: Any, cost: Regularizer, samples: int | None, generator: torch.Generator | None
) -> Iterator[AttachedDrift]:
    """Put functions that listen in the places of those of an `sde`, and these back at the end."""
    hint = "An SDE has no Taylor series in time, and torchsde makes no error estimate that has a gradient."
    for term in costs_of(cost, (KineticEnergy, JacobianFrobenius, TrajectoryIntegral), hint):
        if isinstance(term, TaylorEnergy) and term.order > 1:
            raise ValueError(f"{hint} Got {term!r}: take `KineticEnergy()` or `JacobianFrobenius()`.")
    given = {name: getattr(sde, name) for name in METHODS if callable(getattr(sde, name, None))}
    if not given:
        raise ValueError(f"`sde` must have its drift as one of {', '.join(METHODS)}, got {type(sde).__name__}.")
    if any(getattr(function, "listens", False) for function in given.values()):
        raise ValueError("A cost is attached to this `sde` already. Attach their sum, as in `first + 2.0 * second`.")
    calls = Calls(Reservoir(samples, generator))
    with replaced(sde, {name: _listening(function, calls) for name, function in given.items()}):
        yield AttachedDrift(cost=cost, drift=_drift(given), calls=calls)


def _listening(function: Callable[..., Any], calls: Calls) -> Callable[..., Any]:
    """Return a function that tells of its calls."""

    def listening(t: Any, y: Tensor, *rest: Any) -> Any:
        calls.hear(t, y)
        return function(t, y, *rest)

    vars(listening)["listens"] = True
    return listening


def _drift(functions: dict[str, Callable[..., Any]]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the drift alone."""
    if "f" in functions:
        return functions["f"]
    if "f_and_g" in functions:
        return lambda t, y: functions["f_and_g"](t, y)[0]
    raise ValueError("`sde` has its drift only in `f_and_g_prod`, which cannot be evaluated by itself. Give it an `f`.")
