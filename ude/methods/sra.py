"""Stochastic Runge-Kutta methods of strong order 1.5 for additive noise."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.methods.coefficients.sra import SOSRA as SOSRA_TABLEAU
from ude.methods.coefficients.sra import SOSRA2 as SOSRA2_TABLEAU
from ude.methods.coefficients.sra import SRA1 as SRA1_TABLEAU
from ude.methods.coefficients.sra import SRA3 as SRA3_TABLEAU
from ude.methods.combination import advance, combination
from ude.methods.method import Carry, StepResult
from ude.methods.stochastic import Interpretation, Noise, spread
from ude.methods.stochastic_runge_kutta import StochasticRungeKutta
from ude.methods.stochastic_steps import stochastic
from ude.methods.stochastic_tableau import SRATableau


@dataclass(frozen=True, slots=True)
class SRA(StochasticRungeKutta):
    r"""A stochastic Runge-Kutta method for equations with additive noise of any shape, given by its coefficients.

    Strong order 1.5; formulas in `SRATableau`, error estimate in `StochasticRungeKutta`. Every step takes the increment
    of the path and its space-time Levy area. For additive noise the equations of Ito and of Stratonovich are the same.

    Args:
        tableau: The coefficients; checked when the tableau was made.
        delta: Weight of the drift in the error estimate. Without it there is no estimate where the diffusion is
            constant.
        compares_drift: Estimate the error of the drift by comparison; else bound it as published.
    """

    tableau: SRATableau

    @property
    def noises(self) -> tuple[Noise, ...]:
        """The kinds of noise it solves."""
        return ("additive",)

    @property
    def interpretation(self) -> Interpretation | None:
        """None: it serves both stochastic integrals, which are the same here."""
        return None

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
        increment = equation.increment(t, dt)
        i10 = torch.add(increment.h, increment.w, alpha=0.5)
        diffusions = [equation.diffusion(torch.add(t, dt, alpha=node), y) for node in tableau.c1]
        noises = [spread(equation, diffusion, i10) for diffusion in diffusions]
        states: list[Tensor] = []
        drifts: list[Tensor] = []
        for a, b, node in zip(tableau.a0, tableau.b0, tableau.c0, strict=True):
            state = advance(y, length, a, drifts)
            for weight, noise in zip(b, noises, strict=False):
                state = torch.add(state, noise, alpha=weight) if weight else state
            states.append(state)
            drifts.append(f(torch.add(t, dt, alpha=node), state))
        embedded = combination(tableau.beta2, noises)
        y1 = advance(y, length, tableau.alpha, drifts) + embedded
        y1 = y1 + spread(equation, combination(tableau.beta1, diffusions), increment.w)
        return self._result(dt, y, y1, embedded, states, drifts)


@dataclass(frozen=True, slots=True)
class SRA1(SRA):
    r"""The method SRA1 of Roessler: the cheapest one for additive noise.

    Two evaluations of the drift and two of the diffusion per step; order 2 without noise; no stiffness estimate.

    Args:
        delta: Weight of the drift in the error estimate.
        compares_drift: Estimate the error of the drift by comparison; else bound it as published.

    Reference:
        Roessler (2010), Runge-Kutta methods for the strong approximation of solutions of stochastic differential
        equations, SIAM J. Numer. Anal. 48(3), 922-952.
    """

    tableau: SRATableau = field(default=SRA1_TABLEAU, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class SRA3(SRA):
    r"""The method SRA3 of Roessler: for small noise.

    Three evaluations of the drift and two of the diffusion per step; order 3 without noise; no stiffness estimate.

    Args:
        delta: Weight of the drift in the error estimate.
        compares_drift: Estimate the error of the drift by comparison; else bound it as published.

    Reference:
        Roessler (2010), Runge-Kutta methods for the strong approximation of solutions of stochastic differential
        equations, SIAM J. Numer. Anal. 48(3), 922-952.
    """

    tableau: SRATableau = field(default=SRA3_TABLEAU, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class SOSRA(SRA):
    r"""The stability-optimized method of Rackauckas and Nie: the one to try first for additive noise.

    Three evaluations of the drift and three of the diffusion per step; order 2 without noise, with a stability region
    2.6 times as long as that of `SRA1`; no stiffness estimate.

    Args:
        delta: Weight of the drift in the error estimate.
        compares_drift: Estimate the error of the drift by comparison; else bound it as published.

    Example:
        >>> str(SOSRA()), SOSRA().order, SOSRA().evaluations
        ('SOSRA', 1.5, 3)

    Reference:
        Rackauckas & Nie (2020), Stability-optimized high order methods and stiffness detection for pathwise stiff
        stochastic differential equations, IEEE HPEC, arXiv:1804.04344.
    """

    tableau: SRATableau = field(default=SOSRA_TABLEAU, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class SOSRA2(SRA):
    r"""The stability-optimized method of Rackauckas and Nie that estimates stiffness.

    Three evaluations of the drift and two of the diffusion per step; order 2 without noise. The last two evaluations of
    the drift are made at the end of the step and give the stiffness estimate $\|f_3 - f_2\| / \|H_3 - H_2\|$.

    Args:
        delta: Weight of the drift in the error estimate.
        compares_drift: Estimate the error of the drift by comparison; else bound it as published.

    Reference:
        Rackauckas & Nie (2020), Stability-optimized high order methods and stiffness detection for pathwise stiff
        stochastic differential equations, IEEE HPEC, arXiv:1804.04344.
    """

    tableau: SRATableau = field(default=SOSRA2_TABLEAU, init=False, repr=False)
