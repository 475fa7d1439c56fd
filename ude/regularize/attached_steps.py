"""Costs of solves that torchdiffeq made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ude.methods.torchdiffeq_names import ADAPTIVE
from ude.regularize.attached import Attached, costs_of
from ude.regularize.energy import TrajectoryIntegral
from ude.regularize.nodes import Nodes
from ude.regularize.regularizer import Regularizer
from ude.regularize.repeated import Form, Repeater
from ude.regularize.replaced import replaced
from ude.regularize.steps import ErrorEstimate, StiffnessEstimate
from ude.regularize.terms import terms_of
from ude.regularize.told_steps import TAKEN, THROWN, TRIED, Listener, ToldSolve, ToldStep

BORROWED = ("adaptive_heun", "fehlberg2")
"""Methods that start every step with the last stage of the one before, which belongs to another state: such a step
cannot be repeated by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedSteps(Attached):
    """The cost of solves by torchdiffeq, from some of their steps.

    Args:
        cost: The regularizer.
        repeater: Makes the steps again.
        listener: Hears of the steps.
    """

    cost: Regularizer
    repeater: Repeater
    listener: Listener

    def value(self) -> Tensor:
        """Return the cost, shape `()`, on the autograd graph; the mean over the solves."""
        listener, name = self.listener, self.repeater.name
        solves = [solve for solve in listener.solves if solve.last is not None]
        if listener.tried and not solves:
            raise ValueError(
                f"{listener.tried} steps were begun, and no word came of any that was taken: a method on a grid made "
                f"them, not {name!r}. Name it, as in `attach(func, TaylorEnergy(), method='rk4')`."
            )
        if not solves:
            raise ValueError(
                "No step was told of. Solve inside of the `with` block, and hand over the very `func` that was "
                "attached to. Of 'scipy_solver', and of an event on a grid, torchdiffeq tells nothing."
            )
        if listener.tried_again:
            raise ValueError(
                f"A step was tried again with another length, which {name!r} never does. Name the method of the solve, "
                "as in `attach(func, cost, method='dopri5')`."
            )
        return self.cost.checked(torch.stack([self._of(solve) for solve in solves]).mean())

    @property
    def nfe(self) -> int:
        """Evaluations that the solves made; without those for jumps and for cubic interpolation on a grid."""
        if self.repeater.method is None:
            raise ValueError(f"How often {self.repeater.name!r} evaluates is not known. Count the calls of `func`.")
        stages = self.repeater.method.evaluations
        starts = (1 + (self.repeater.options.first_step is None)) * len(self.listener.solves)
        return stages * self.listener.tried + (starts if self.listener.controls else 0)

    @property
    def accepted(self) -> int:
        """Steps that were taken."""
        return self.listener.taken

    @property
    def rejected(self) -> int:
        """Steps that were tried and thrown away."""
        return self.listener.thrown

    def _of(self, solve: ToldSolve) -> Tensor:
        """Return the cost of one solve."""
        steps, sign = solve.drawn.kept, self.listener.sign_of(solve)
        share = solve.drawn.seen / len(steps)
        terms = terms_of(self.cost)
        singles = []
        if any(isinstance(term, ErrorEstimate | StiffnessEstimate) for _, term in terms):
            singles = [self.repeater.repeat(step, solve, sign) for step in steps]
        costs = []
        for weight, term in terms:
            if isinstance(term, TrajectoryIntegral):
                costs.append(weight * self._integral(term, steps, share))
                continue
            assert isinstance(term, ErrorEstimate | StiffnessEstimate)  # as was checked
            values = torch.cat([term.of_single(single) for single in singles])
            total = share * values.sum()
            costs.append(weight * {"mean": values.mean(), "sum": total, "max": values.amax()}[term.reduce])
        return torch.stack(costs).sum()

    def _integral(self, cost: TrajectoryIntegral, steps: list[ToldStep], share: float) -> Tensor:
        """Return an integral from its integrand at the starts of steps, weighted by their lengths."""
        form = Form.of(steps[0].y)
        y = torch.stack([form.flatten(step.y) for step in steps])
        real = y.detach().real
        t = torch.stack([step.t.to(real).reshape(1) for step in steps])
        dt = torch.stack([step.dt.to(real).reshape(1) for step in steps])
        return cost.over(form.bind(self.repeater.func), Nodes(t, y.detach() if cost.detach else y, share * dt))


@contextmanager
def attach_to_steps(
    cost: Regularizer, repeater: Repeater, samples: int | None, generator: torch.Generator | None
) -> Iterator[AttachedSteps]:
    """Set callbacks on a vector field, remove them at the end."""
    func, name = repeater.func, repeater.name
    _check_costs(cost, repeater)
    controls = name in ADAPTIVE
    listener = Listener(samples, generator, controls)
    if any(isinstance(getattr(getattr(func, key, None), "__self__", None), Listener) for key in (TRIED, TAKEN, THROWN)):
        raise ValueError("A cost is attached to this `func` already. Attach their sum, as in `first + 2.0 * second`.")
    callbacks = listener.callbacks()
    listener.others = {key: getattr(func, key) for key in callbacks if getattr(func, key, None) is not None}
    with ExitStack() as stack:
        try:
            stack.enter_context(replaced(func, callbacks))
        except (AttributeError, TypeError) as error:
            raise TypeError(
                f"torchdiffeq looks for callbacks among the attributes of `func`, and {type(func).__name__} takes "
                "none. Wrap it: `def field(t, y): return func(t, y)`, and solve and attach with `field`."
            ) from error
        yield AttachedSteps(cost=cost, repeater=repeater, listener=listener)


def _check_costs(cost: Regularizer, repeater: Repeater) -> None:
    """Raise unless the steps of a method have what the costs need."""
    hint = (
        "Of `Local(cost)` give the cost itself: under `odeint_adjoint` it is local. `Steer` is asked for the times: "
        "`Steer().times(t)`."
    )
    name = repeater.name
    for term in costs_of(cost, (ErrorEstimate, StiffnessEstimate, TrajectoryIntegral), hint):
        if isinstance(term, ErrorEstimate) and name not in ADAPTIVE:
            raise ValueError(
                f"{name!r} makes no error estimate, which {term} needs. Solve with a method that controls its steps, "
                "such as 'dopri5', or take `TaylorEnergy`, which works with every method."
            )
        if isinstance(term, ErrorEstimate | StiffnessEstimate) and name in BORROWED:
            raise ValueError(
                f"A step of torchdiffeq's {name!r} cannot be repeated, as {term} needs: its first stage comes from "
                "another state. Solve with 'dopri5', 'dopri8' or 'bosh3', or by `ude.compat.odeint(..., regularizer=)`."
            )
        method = repeater.method
        if isinstance(term, StiffnessEstimate) and not (method is not None and method.estimates_stiffness):
            raise ValueError(
                f"{name!r} makes no stiffness estimate, which {term} needs. Solve with 'dopri5' or 'dopri8', or take "
                "`JacobianFrobenius`, which works with every method."
            )
