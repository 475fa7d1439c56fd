"""An explicit method that hands over to an implicit one where the problem is stiff, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.methods.explicit import ExplicitRungeKutta
from ude.methods.method import Carry, Method, StepResult, Tolerances, take_step

LIMIT = 0.9
"""Share of the stability region of the explicit method from which a step counts as limited by stability."""

PATIENCE = 10
"""So many stiff steps are not enough to switch to the implicit method."""

FORGIVENESS = 0.25
"""What a step that is not stiff takes from the count of stiff ones: at the limit of stability the estimates of one step
and the next lie on either side of it."""

RETURN = 3
"""So many steps in a row that are not stiff are not enough to switch back."""

# The memory of a sample is one number. With the explicit method it is the count of stiff steps, up to PATIENCE. With
# the implicit method it is at most ENTERED in its first step, afterwards STAYING, and one more for every step in a row
# that was not stiff. In the first step after that it is LEFT.
ENTERED, STAYING, LEFT = PATIENCE + 1, PATIENCE + 2, PATIENCE + RETURN + 4


@dataclass(frozen=True, slots=True)
class AutoSwitch:
    r"""Explicit steps where they will do, implicit ones where the problem is stiff; per sample, in both directions.

    An explicit step is stiff if $|\Delta t|\, \rho > 0.9\, s$, for the rate $\rho$ estimated from the step and the
    length $s$ of the stability region: it could not have been much longer however loose the tolerance. After more than
    ten accepted stiff steps, four others making up for one of them, the sample goes on with the implicit method; after
    more than three in a row that are not stiff, by the norm of the Jacobian, it goes on with the explicit one.

    The eager loop makes only the steps that are wanted, so that a batch without stiff samples costs little more than
    with the explicit method; in a mixed batch, and compiled, every step is made by both. `Stats.nfe` counts for every
    sample the steps of the method that it was with.

    Args:
        nonstiff: An explicit method with a stiffness estimate: `Tsit5()`, `Dopri5()`, `Vern7()`, `Dopri8()`.
        stiff: An implicit method with an error estimate.

    Raises:
        ValueError: If a method lacks its estimate.

    Example:
        >>> from ude.methods import Rodas5P, Tsit5
        >>> print(AutoSwitch(Tsit5(), Rodas5P()))
        AutoSwitch(Tsit5, Rodas5P)

    Reference:
        Hairer & Wanner (1996), Solving Ordinary Differential Equations II, section IV.2, for the estimate.
    """

    nonstiff: ExplicitRungeKutta
    stiff: Method
    stages: tuple[int, int] = field(init=False, repr=False)
    """Numbers of stages of both methods."""

    def __post_init__(self) -> None:
        rates = isinstance(self.nonstiff, ExplicitRungeKutta) and self.nonstiff.estimates_stiffness
        if not rates or self.nonstiff.stability_size is None or self.nonstiff.error_order is None:
            raise ValueError(
                "`nonstiff` must be an explicit method with estimates of error and stiffness, such as `Tsit5()` or "
                f"`Vern7()`, got {self.nonstiff}."
            )
        if self.stiff.error_order is None:
            raise ValueError(f"`stiff` must be a method with an error estimate, such as `Rodas5P()`, got {self.stiff}.")
        counts = [len(m.dense_weights(torch.zeros(()))) - m.dense_evaluations for m in (self.nonstiff, self.stiff)]
        object.__setattr__(self, "stages", tuple(counts))

    def __str__(self) -> str:
        return f"AutoSwitch({self.nonstiff}, {self.stiff})"

    @property
    def order(self) -> float:
        """Order of convergence, of the less accurate method."""
        return min(self.nonstiff.order, self.stiff.order)

    @property
    def error_order(self) -> float:
        """The error estimate shrinks like `dt ** error_order`: the higher of two orders, which is the safer guess."""
        assert self.nonstiff.error_order is not None  # checked when this was made
        assert self.stiff.error_order is not None
        return max(self.nonstiff.error_order, self.stiff.error_order)

    @property
    def stability_size(self) -> float:
        """Length of the stability region of the explicit method along the negative real axis."""
        assert self.nonstiff.stability_size is not None  # checked when this was made
        return self.nonstiff.stability_size

    @property
    def evaluations(self) -> int:
        """Evaluations of the vector field in one explicit step; implicit ones count their own."""
        return self.nonstiff.evaluations

    @property
    def init_evaluations(self) -> int:
        """Evaluations of the vector field in `init`."""
        return self.nonstiff.init_evaluations + self.stiff.init_evaluations

    @property
    def dense_evaluations(self) -> int:
        """Extra evaluations made by `dense_stages`."""
        return self.nonstiff.dense_evaluations + self.stiff.dense_evaluations

    def init(self, f: FlatField, t: Tensor, y: Tensor) -> Carry:
        """Return a memory of no stiff steps, and what both methods carry."""
        memory = torch.zeros_like(t).unsqueeze(-1)
        return (memory, *self.nonstiff.init(f, t, y), *self.stiff.init(f, t, y))

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`, an implicit one with stages solved nearly to rounding."""
        return self.step_within(f, t, dt, y, carry, Tolerances.tight(y))

    def step_within(
        self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry, tolerances: Tolerances
    ) -> StepResult:
        """Take one step from `t` to `t + dt`.

        Args:
            f: Vector field, called as `f(t, y)`.
            t: Start of the step, shape `(batch,)`.
            dt: Signed length of the step, shape `(batch,)`.
            y: State at `t`, shape `(batch, state)`; real, once a sample is stiff.
            carry: From `init` or from the previous accepted step.
            tolerances: For a method that iterates.

        Returns:
            The step of the method that each sample is with; the stages of the other are zero.
        """
        count = 1 + int(self.nonstiff.tableau.fsal)
        memory, own, others = carry[0], carry[1:count], carry[count:]
        looks = not torch.compiler.is_compiling()
        highest = float(memory.max()) if looks else LEFT
        if highest <= PATIENCE:
            return self._explicit(f, t, dt, y, (memory, own, others), untroubled=highest == 0.0)
        carried, init = self._changed_over(f, t, y, (memory, own, others))
        is_implicit = carried[0].squeeze(-1) > PATIENCE
        if looks and bool(is_implicit.all()):
            implicit = self._implicit(f, t, dt, y, carried, tolerances)
            return implicit._replace(evaluations=self._count(is_implicit, implicit) + init)
        # A step of zero for those that go the other way: no infinite number of theirs enters the backward pass.
        explicit = self._explicit(f, t, torch.where(is_implicit, 0.0, dt), y, carried)
        if looks and not bool(is_implicit.any()):
            return explicit._replace(evaluations=self._count(is_implicit, explicit) + init)
        implicit = self._implicit(f, t, torch.where(is_implicit, dt, 0.0), y, carried, tolerances)
        joined = self._joined(is_implicit, explicit, implicit)
        return joined._replace(evaluations=self._count(is_implicit, implicit) + init)

    def _changed_over(
        self, f: FlatField, t: Tensor, y: Tensor, carried: tuple[Tensor, Carry, Carry]
    ) -> tuple[tuple[Tensor, Carry, Carry], Tensor]:
        """Begin anew with the method that a sample goes over to; return the evaluations of each as well."""
        memory, own, others = carried
        looks = not torch.compiler.is_compiling()
        has_left = memory == LEFT
        has_entered = (memory > PATIENCE) & (memory <= ENTERED)
        evaluations = torch.zeros_like(memory, dtype=torch.int64)
        if own and (not looks or bool(has_left.any())):
            own = _chosen(has_left, self.nonstiff.init(f, t, y), own)
            evaluations = evaluations + has_left * self.nonstiff.init_evaluations
        if others and (not looks or bool(has_entered.any())):
            others = _chosen(has_entered, self.stiff.init(f, t, y), others)
            evaluations = evaluations + has_entered * self.stiff.init_evaluations
        return (torch.where(has_left, 0.0, memory), own, others), evaluations.squeeze(-1)

    def _count(self, is_implicit: Tensor, result: StepResult) -> Tensor:
        """Return the evaluations of every sample's own step, given the result of those that are implicit."""
        count = self.stiff.evaluations if result.evaluations is None else result.evaluations
        return torch.where(is_implicit, count, self.nonstiff.evaluations)

    def _explicit(
        self,
        f: FlatField,
        t: Tensor,
        dt: Tensor,
        y: Tensor,
        carried: tuple[Tensor, Carry, Carry],
        *,
        untroubled: bool = False,
    ) -> StepResult:
        """Take an explicit step and count it if it was stiff; `untroubled` if the counts of all samples are zero."""
        memory, own, others = carried
        result = self.nonstiff.step(f, t, dt, y, own)
        assert result.stiffness is not None  # the method has an estimate
        extent, limit = dt * result.stiffness.detach(), LIMIT * self.stability_size
        # A look is cheaper than counting, which most problems never need.
        if not untroubled or float(torch.linalg.vector_norm(extent, torch.inf)) > limit:
            is_stiff = (extent.abs() > limit).unsqueeze(-1)
            memory = torch.add(memory - FORGIVENESS, is_stiff, alpha=1.0 + FORGIVENESS).clamp(min=0.0)
        unused = (torch.zeros_like(y),) * self.stages[1]
        return result._replace(stages=(*result.stages, *unused), carry=(memory, *result.carry, *others))

    def _implicit(
        self,
        f: FlatField,
        t: Tensor,
        dt: Tensor,
        y: Tensor,
        carried: tuple[Tensor, Carry, Carry],
        tolerances: Tolerances,
    ) -> StepResult:
        """Take an implicit step and count it if it was not stiff."""
        memory, own, others = carried
        try:
            result = take_step(self.stiff, f, t, dt, y, others, tolerances)
        except (NotImplementedError, TypeError, ValueError) as error:
            error.add_note(
                f"The problem became stiff, and {self.stiff} needs the Jacobian of the vector field. Solve with an "
                f"explicit method, `method={self.nonstiff}()`, to do without, or give the Jacobian to `ODEProblem`."
            )
            raise
        counted = torch.full_like(memory, STAYING)
        if result.stiffness is not None:
            # A rate of NaN is not calm.
            is_calm = (dt * result.stiffness.detach()).abs() <= LIMIT * self.stability_size
            counted = torch.where(is_calm.unsqueeze(-1), memory.clamp(min=STAYING) + 1.0, counted)
            counted = torch.where(counted > STAYING + RETURN, LEFT, counted)
        unused = (torch.zeros_like(y),) * self.stages[0]
        return result._replace(stages=(*unused, *result.stages), carry=(counted, *own, *result.carry))

    def _joined(self, is_implicit: Tensor, explicit: StepResult, implicit: StepResult) -> StepResult:
        """Take from each step the samples that it was meant for."""
        mask, count = is_implicit.unsqueeze(-1), self.stages[0]
        assert explicit.error is not None  # checked when this was made
        assert implicit.error is not None
        assert explicit.stiffness is not None
        stiffness = explicit.stiffness
        if implicit.stiffness is not None:
            stiffness = torch.where(is_implicit, implicit.stiffness, stiffness)
        factor = None if implicit.factor is None else torch.where(is_implicit, implicit.factor, torch.nan)
        return StepResult(
            y1=torch.where(mask, implicit.y1, explicit.y1),
            error=torch.where(mask, implicit.error, explicit.error),
            stiffness=stiffness,
            stages=(
                *(torch.where(mask, 0.0, stage) for stage in explicit.stages[:count]),
                *(torch.where(mask, stage, 0.0) for stage in implicit.stages[count:]),
            ),
            carry=_chosen(mask, implicit.carry, explicit.carry),
            factor=factor,
        )

    def dense_stages(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, step: StepResult) -> tuple[Tensor, ...]:
        """Return the stages that `dense_weights` refers to: those of both methods, one of them all zero."""
        if not self.dense_evaluations:
            return step.stages
        count, parts = self.stages[0], []
        is_implicit = self._is_implicit(step.stages)
        own = ((self.nonstiff, step.stages[:count], ~is_implicit), (self.stiff, step.stages[count:], is_implicit))
        for method, stages, mine in own:
            parts += stages
            if method.dense_evaluations and bool(mine.any()):
                whole = method.dense_stages(f, t, dt, y, step._replace(stages=stages))
                # The extra stages of the method that did not make the step are no part of it.
                parts += (torch.where(mine.unsqueeze(-1), x, 0.0) for x in whole[len(stages) :])
            else:
                parts += (torch.zeros_like(y),) * method.dense_evaluations
        return tuple(parts)

    def extra_evaluations(self, stages: Sequence[Tensor]) -> Tensor:
        """Return how many evaluations `dense_stages` makes for a step with these stages, shape `(batch,)`."""
        is_implicit = self._is_implicit(stages)
        return torch.where(is_implicit, self.stiff.dense_evaluations, self.nonstiff.dense_evaluations)

    def _is_implicit(self, stages: Sequence[Tensor]) -> Tensor:
        """Return whose step was made by the implicit method: there its stages are not all zero."""
        return (torch.stack(tuple(stages[self.stages[0] :])) != 0.0).any(-1).any(0)

    def dense_weights(self, theta: Tensor) -> Tensor:
        r"""Weights of the continuous extensions of both methods, shape `(stages, *theta.shape)`.

        Args:
            theta: Fraction of the step, between 0 and 1; real, any shape.
        """
        return torch.cat([self.nonstiff.dense_weights(theta), self.stiff.dense_weights(theta)])


def _chosen(mask: Tensor, new: Carry, old: Carry) -> Carry:
    return tuple(torch.where(mask, x, y) for x, y in zip(new, old, strict=True))
