"""Stochastic Runge-Kutta methods of strong order 1.5 for diagonal and scalar noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.brownian import Increment
from ude.methods.coefficients.sri import SOSRI as SOSRI_TABLEAU
from ude.methods.coefficients.sri import SOSRI2 as SOSRI2_TABLEAU
from ude.methods.coefficients.sri import SRIW1 as SRIW1_TABLEAU
from ude.methods.combination import advance, combination
from ude.methods.method import Carry, StepResult
from ude.methods.stochastic import Interpretation, Noise, StochasticField
from ude.methods.stochastic_runge_kutta import StochasticRungeKutta
from ude.methods.stochastic_steps import stochastic
from ude.methods.stochastic_tableau import SRITableau


@dataclass(frozen=True, slots=True)
class SRI(StochasticRungeKutta):
    r"""A stochastic Runge-Kutta method for Ito equations with diagonal or scalar noise, given by its coefficients.

    Strong order 1.5; formulas in `SRITableau`, error estimate in `StochasticRungeKutta`. Every step takes the increment
    of the path and its space-time Levy area. Where time runs backwards, the equation is that of Ito in the direction of
    the integration: lengths in the iterated integrals of the noise are absolute.

    Component $i$ of a diagonal diffusion is to be a function of component $i$ of the state. Where it depends on other
    components as well, as that of a neural network does, the noise does not commute, and the strong order is 1/2.

    Args:
        tableau: The coefficients; checked when the tableau was made.
        delta: Weight of the drift in the error estimate.
        compares_drift: Estimate the error of the drift by comparison; else bound it as published.
    """

    tableau: SRITableau

    @property
    def noises(self) -> tuple[Noise, ...]:
        """The kinds of noise it solves."""
        return ("diagonal", "scalar")

    @property
    def interpretation(self) -> Interpretation:
        """The stochastic integral that it approximates."""
        return "ito"

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`.

        Args:
            f: A `StochasticField`.
            t: Start of the step, shape `(batch,)`.
            dt: Signed length of the step, shape `(batch,)`.
            y: State at `t`, shape `(batch, state)`.
            carry: Nothing.

        Returns:
            The new state, the error estimate, the stiffness estimate from the last two drift stages if both are taken
            at the end of the step, and the slope of the line between the ends of the step.
        """
        tableau, equation = self.tableau, stochastic(f)
        length = dt.to(y.dtype).unsqueeze(-1)
        noise = _integrals(equation.increment(t, dt), length)
        states: list[Tensor] = []
        drifts: list[Tensor] = []
        diffusions: list[Tensor] = []
        for i in range(max(len(tableau.c0), len(tableau.c1))):
            if i < len(tableau.c0):
                argument = advance(y, length, tableau.a0[i], drifts)
                states.append(advance(argument, noise.i10, tableau.b0[i], diffusions))
                drifts.append(f(torch.add(t, dt, alpha=tableau.c0[i]), states[i]))
            if i < len(tableau.c1):
                argument = advance(y, length, tableau.a1[i], drifts)
                argument = advance(argument, noise.root, tableau.b1[i], diffusions)
                diffusions.append(_column(equation, torch.add(t, dt, alpha=tableau.c1[i]), argument))
        embedded = noise.i10 * combination(tableau.beta3, diffusions)
        embedded = advance(embedded, noise.i111, tableau.beta4, diffusions)
        y1 = advance(y, length, tableau.alpha, drifts)
        y1 = advance(y1, noise.i1, tableau.beta1, diffusions)
        y1 = advance(y1, noise.i11, tableau.beta2, diffusions) + embedded
        return self._result(dt, y, y1, embedded, states, drifts)


@dataclass(frozen=True, slots=True)
class SRIW1(SRI):
    r"""The method SRIW1 of Roessler: the fewest evaluations of the drift at strong order 1.5.

    Two evaluations of the drift and four of the diffusion per step; no stiffness estimate.

    Args:
        delta: Weight of the drift in the error estimate.
        compares_drift: Estimate the error of the drift by comparison; else bound it as published.

    Reference:
        Roessler (2010), Runge-Kutta methods for the strong approximation of solutions of stochastic differential
        equations, SIAM J. Numer. Anal. 48(3), 922-952.
    """

    tableau: SRITableau = field(default=SRIW1_TABLEAU, init=False, repr=False)
    delta: float = field(default=1 / 6, kw_only=True)


@dataclass(frozen=True, slots=True)
class SOSRI(SRI):
    r"""The stability-optimized method of Rackauckas and Nie: the one to try first for diagonal and scalar noise.

    Four evaluations of the drift and four of the diffusion per step, with a stability region nearly five times as long
    as that of `SRIW1`; no stiffness estimate. One drift stage is taken 3.75 steps after the start of the step: the
    drift must be defined beyond the end of the interval.

    Args:
        delta: Weight of the drift in the error estimate.
        compares_drift: Estimate the error of the drift by comparison; else bound it as published.

    Example:
        >>> str(SOSRI()), SOSRI().order, SOSRI().evaluations
        ('SOSRI', 1.5, 4)

    Reference:
        Rackauckas & Nie (2020), Stability-optimized high order methods and stiffness detection for pathwise stiff
        stochastic differential equations, IEEE HPEC, arXiv:1804.04344.
    """

    tableau: SRITableau = field(default=SOSRI_TABLEAU, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class SOSRI2(SRI):
    r"""The stability-optimized method of Rackauckas and Nie that estimates stiffness.

    Four evaluations of the drift and four of the diffusion per step, all within the step; the last two of the drift
    are made at its end and give the stiffness estimate $\|f_4 - f_3\| / \|H^0_4 - H^0_3\|$.

    Args:
        delta: Weight of the drift in the error estimate.
        compares_drift: Estimate the error of the drift by comparison; else bound it as published.

    Reference:
        Rackauckas & Nie (2020), Stability-optimized high order methods and stiffness detection for pathwise stiff
        stochastic differential equations, IEEE HPEC, arXiv:1804.04344.
    """

    tableau: SRITableau = field(default=SOSRI2_TABLEAU, init=False, repr=False)


class _Integrals(NamedTuple):
    r"""Iterated integrals of the noise in a step, scaled, shape `(batch, noise)`, and $\sqrt{|h|}$, `(batch, 1)`.

    Args:
        i1: $I_1$.
        i11: $I_{11} / \sqrt{|h|}$.
        i10: $I_{10} / h$.
        i111: $I_{111} / |h|$.
        root: $\sqrt{|h|}$.
    """

    i1: Tensor
    i11: Tensor
    i10: Tensor
    i111: Tensor
    root: Tensor


def _integrals(increment: Increment, length: Tensor) -> _Integrals:
    w, square, size = increment.w, increment.w.square(), length.abs()
    # Samples that have arrived stand still: what is zero there is divided by 1.
    stands = size == 0.0
    divisor = torch.where(stands, 1.0, size)
    root = divisor.sqrt()
    return _Integrals(
        i1=w,
        i11=(square - size) / (2 * root),
        i10=torch.add(increment.h, w, alpha=0.5),
        i111=w * (square - 3 * size) / (6 * divisor),
        root=torch.where(stands, 0.0, root),
    )


def _column(equation: StochasticField, t: Tensor, y: Tensor) -> Tensor:
    """Return the diffusion in the shape of the state; scalar noise has but one column."""
    diffusion = equation.diffusion(t, y)
    return diffusion if equation.is_diagonal else diffusion.reshape(y.shape)
