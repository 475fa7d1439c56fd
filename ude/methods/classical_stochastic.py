"""Methods for stochastic differential equations that need no table of coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ude import ad
from ude._typing import FlatField
from ude.methods.method import Carry, StepResult
from ude.methods.stochastic import Interpretation, Noise, StochasticField, spread
from ude.methods.stochastic_steps import LinearSteps, linear, stochastic

EVERY: tuple[Noise, ...] = ("diagonal", "additive", "scalar", "commutative", "general")
COMMUTING: tuple[Noise, ...] = ("diagonal", "additive", "scalar", "commutative")


@dataclass(frozen=True, slots=True)
class EulerMaruyama(LinearSteps):
    r"""$y_1 = y + f\, \Delta t + g\, \Delta W$: strong order 1/2, 1 with additive noise; weak order 1. Ito.

    Constant steps; one evaluation of drift and diffusion each. `LambaEM` chooses its steps.

    Reference:
        Maruyama (1955), Continuous Markov processes and stochastic equations, Rend. Circ. Mat. Palermo 4, 48-90.
    """

    def __str__(self) -> str:
        return "EulerMaruyama"

    @property
    def order(self) -> float:
        """Strong order of convergence."""
        return 0.5

    @property
    def error_order(self) -> None:
        """There is no error estimate."""
        return

    @property
    def evaluations(self) -> int:
        """Evaluations of the drift in one step."""
        return 1

    @property
    def noises(self) -> tuple[Noise, ...]:
        """Every kind."""
        return EVERY

    @property
    def interpretation(self) -> Interpretation:
        """That of Ito."""
        return "ito"

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`."""
        field = stochastic(f)
        y1 = _euler(field, t, dt, y)
        return StepResult(y1=y1, error=None, stiffness=None, stages=linear(y, dt, y1), carry=())


@dataclass(frozen=True, slots=True)
class LambaEM(LinearSteps):
    r"""The Euler-Maruyama step with an estimate of its error, so that its steps can be chosen.

    The estimate adds what a second evaluation says of drift and diffusion, without regard to signs:
    $\frac{\Delta t}{2} |f(t_1, y + f \Delta t) - f|$ and $|(g(t, y + g \sqrt{\Delta t}) - g)| \,|\Delta W^2 - \Delta t|
    / (2 \sqrt{\Delta t})$. With noise that is no diagonal the second is taken along the noise of the step.

    Reference:
        Lamba (2003), An adaptive timestepping algorithm for stochastic differential equations, J. Comput. Appl. Math.
        161(2), 417-430.
    """

    def __str__(self) -> str:
        return "LambaEM"

    @property
    def order(self) -> float:
        """Strong order of convergence."""
        return 0.5

    @property
    def error_order(self) -> float:
        """The error estimate shrinks like the step."""
        return 1.0

    @property
    def evaluations(self) -> int:
        """Evaluations of the drift in one step."""
        return 2

    @property
    def noises(self) -> tuple[Noise, ...]:
        """Every kind."""
        return EVERY

    @property
    def interpretation(self) -> Interpretation:
        """That of Ito."""
        return "ito"

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`."""
        field = stochastic(f)
        length = dt.to(y.dtype).unsqueeze(-1)
        drift, diffusion, w = field(t, y), field.diffusion(t, y), field.wiener(t, dt)
        drifted = torch.addcmul(y, length, drift)
        y1 = drifted + spread(field, diffusion, w)
        of_drift = 0.5 * length * (field(t + dt, drifted) - drift).abs()
        root = length.sqrt()
        size = torch.where(root > 0.0, root, 1.0)
        if field.is_diagonal:
            moved = field.diffusion(t, y + diffusion * root) - diffusion
            of_noise = moved.abs() * (w * w - length).abs() / (2.0 * size)
        else:
            moved = field.diffusion(t, y + spread(field, diffusion, w)) - diffusion
            of_noise = 0.5 * spread(field, moved, w).abs()
        return StepResult(y1=y1, error=of_drift + of_noise, stiffness=None, stages=linear(y, dt, y1), carry=())


@dataclass(frozen=True, slots=True)
class Milstein(LinearSteps):
    r"""$y_1 = y + f\, \Delta t + g\, \Delta W + \frac12 g g' (\Delta W^2 - \Delta t)$: strong order 1.

    In the integral of Stratonovich without $-\Delta t$. The derivative of the diffusion comes from the kernel, or from
    a difference over $g \sqrt{\Delta t}$. With commutative noise the iterated integrals of two components are products
    of their increments.

    Args:
        of: The integral, `"ito"` or `"stratonovich"`.
        derivative_free: Take the difference; diagonal and scalar noise only.

    Reference:
        Kloeden & Platen (1992), Numerical solution of stochastic differential equations, sections 10.3 and 11.1.
    """

    of: Interpretation = "ito"
    derivative_free: bool = False

    def __str__(self) -> str:
        return "Milstein"

    @property
    def order(self) -> float:
        """Strong order of convergence."""
        return 1.0

    @property
    def error_order(self) -> None:
        """There is no error estimate."""
        return

    @property
    def evaluations(self) -> int:
        """Evaluations of the drift in one step."""
        return 1

    @property
    def noises(self) -> tuple[Noise, ...]:
        """All but general ones, which would need Levy areas."""
        return ("diagonal", "additive", "scalar") if self.derivative_free else COMMUTING

    @property
    def interpretation(self) -> Interpretation:
        """The one chosen."""
        return self.of

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`."""
        field = stochastic(f)
        length = dt.to(y.dtype).unsqueeze(-1)
        diffusion, w = field.diffusion(t, y), field.wiener(t, dt)
        subtracted = length if self.of == "ito" else torch.zeros_like(length)
        euler = torch.addcmul(y, length, field(t, y)) + spread(field, diffusion, w)
        if not field.is_diagonal:
            y1 = euler + self._commutative(field, t, y, diffusion, w, subtracted)
        elif self.derivative_free:
            root = length.sqrt()
            slope = (field.diffusion(t, y + diffusion * root) - diffusion) / torch.where(root > 0.0, root, 1.0)
            y1 = euler + 0.5 * slope * (w * w - subtracted)
        else:
            slope = ad.jvp(lambda y: field.diffusion(t, y), (y,), (diffusion,))[1]
            y1 = euler + 0.5 * slope * (w * w - subtracted)
        return StepResult(y1=y1, error=None, stiffness=None, stages=linear(y, dt, y1), carry=())

    def _commutative(
        self, field: StochasticField, t: Tensor, y: Tensor, diffusion: Tensor, w: Tensor, subtracted: Tensor
    ) -> Tensor:
        r"""Return $\frac12 \sum_{jk} (\partial g_k\, g_j)(\Delta W_j \Delta W_k - \delta_{jk} \Delta t)$."""
        along = spread(field, diffusion, w)
        products = ad.jvp(lambda y: spread(field, field.diffusion(t, y), w), (y,), (along,))[1]
        if self.of == "stratonovich":
            return 0.5 * products
        own = sum(
            ad.jvp(lambda y, j=j: field.diffusion(t, y)[..., j], (y,), (diffusion[..., j],))[1]
            for j in range(diffusion.shape[-1])
        )
        return 0.5 * (products - subtracted * own)


@dataclass(frozen=True, slots=True)
class EulerHeun(LinearSteps):
    r"""$\bar y = y + g\, \Delta W$, $y_1 = y + f\, \Delta t + \frac12 (g + \bar g)\, \Delta W$ of Stratonovich.

    Strong order 1/2, and 1 with commutative noise; one evaluation of the drift and two of the diffusion.

    Reference:
        Kloeden & Platen (1992), Numerical solution of stochastic differential equations, section 4.9.
    """

    def __str__(self) -> str:
        return "EulerHeun"

    @property
    def order(self) -> float:
        """Strong order of convergence."""
        return 0.5

    @property
    def error_order(self) -> None:
        """There is no error estimate."""
        return

    @property
    def evaluations(self) -> int:
        """Evaluations of the drift in one step."""
        return 1

    @property
    def noises(self) -> tuple[Noise, ...]:
        """Every kind."""
        return EVERY

    @property
    def interpretation(self) -> Interpretation:
        """That of Stratonovich."""
        return "stratonovich"

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`."""
        field = stochastic(f)
        length = dt.to(y.dtype).unsqueeze(-1)
        w = field.wiener(t, dt)
        first = spread(field, field.diffusion(t, y), w)
        second = spread(field, field.diffusion(t + dt, y + first), w)
        y1 = torch.addcmul(y, length, field(t, y)) + 0.5 * (first + second)
        return StepResult(y1=y1, error=None, stiffness=None, stages=linear(y, dt, y1), carry=())


@dataclass(frozen=True, slots=True)
class StratonovichHeun(LinearSteps):
    r"""Heun's method of Stratonovich: $\bar y = y + f \Delta t + g \Delta W$, then the mean of both ends.

    Strong order 1/2, and 1 with commutative noise; order 2 where there is no noise. The difference to $\bar y$
    estimates the error.

    Reference:
        Burrage, Burrage & Tian (2004), Numerical methods for strong solutions of stochastic differential equations: an
        overview, Proc. R. Soc. A 460, 373-402.
    """

    def __str__(self) -> str:
        return "StratonovichHeun"

    @property
    def order(self) -> float:
        """Strong order of convergence."""
        return 0.5

    @property
    def error_order(self) -> float:
        """The difference to the Euler step shrinks like the step."""
        return 1.0

    @property
    def evaluations(self) -> int:
        """Evaluations of the drift in one step."""
        return 2

    @property
    def noises(self) -> tuple[Noise, ...]:
        """Every kind."""
        return EVERY

    @property
    def interpretation(self) -> Interpretation:
        """That of Stratonovich."""
        return "stratonovich"

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`."""
        field = stochastic(f)
        w = field.wiener(t, dt)
        first = _change(field, t, dt, y, w)
        second = _change(field, t + dt, dt, y + first, w)
        y1 = y + 0.5 * (first + second)
        error = 0.5 * (second - first)
        return StepResult(y1=y1, error=error, stiffness=None, stages=linear(y, dt, y1), carry=())


@dataclass(frozen=True, slots=True)
class StratonovichMidpoint(LinearSteps):
    r"""$\bar y = y + \frac12 (f \Delta t + g \Delta W)$, then the whole step with drift and diffusion there.

    Strong order 1/2, and 1 with commutative noise; order 2 where there is no noise. The difference to the Euler step
    estimates the error.

    Reference:
        Burrage, Burrage & Tian (2004), Numerical methods for strong solutions of stochastic differential equations: an
        overview, Proc. R. Soc. A 460, 373-402.
    """

    def __str__(self) -> str:
        return "StratonovichMidpoint"

    @property
    def order(self) -> float:
        """Strong order of convergence."""
        return 0.5

    @property
    def error_order(self) -> float:
        """The difference to the Euler step shrinks like the step."""
        return 1.0

    @property
    def evaluations(self) -> int:
        """Evaluations of the drift in one step."""
        return 2

    @property
    def noises(self) -> tuple[Noise, ...]:
        """Every kind."""
        return EVERY

    @property
    def interpretation(self) -> Interpretation:
        """That of Stratonovich."""
        return "stratonovich"

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`."""
        field = stochastic(f)
        w = field.wiener(t, dt)
        first = _change(field, t, dt, y, w)
        second = _change(field, t + 0.5 * dt, dt, y + 0.5 * first, w)
        y1 = y + second
        return StepResult(y1=y1, error=second - first, stiffness=None, stages=linear(y, dt, y1), carry=())


@dataclass(frozen=True, slots=True)
class ReversibleHeun(LinearSteps):
    r"""A method of Stratonovich whose steps can be undone to rounding, by one evaluation of drift and diffusion each.

    With a second state $\hat y$, which starts at $y$, and $\Delta(\hat y) = f(\hat y) \Delta t + g(\hat y) \Delta W$:
    $\hat y_1 = 2 y - \hat y + \Delta(\hat y)$ and $y_1 = y + \frac12 (\Delta(\hat y) + \Delta(\hat y_1))$. Strong order
    1/2, and 1 with commutative noise.

    Reference:
        Kidger, Foster, Li & Lyons (2021), Efficient and accurate gradients for neural SDEs, NeurIPS, arXiv:2105.13493.
    """

    def __str__(self) -> str:
        return "ReversibleHeun"

    @property
    def order(self) -> float:
        """Strong order of convergence."""
        return 0.5

    @property
    def error_order(self) -> float:
        """The difference between both ends shrinks like the step."""
        return 1.0

    @property
    def evaluations(self) -> int:
        """Evaluations of the drift in one step, less the one carried over."""
        return 1

    @property
    def init_evaluations(self) -> int:
        """None: the drift at the start is counted as carried over from there."""
        return 0

    @property
    def noises(self) -> tuple[Noise, ...]:
        """Every kind."""
        return EVERY

    @property
    def interpretation(self) -> Interpretation:
        """That of Stratonovich."""
        return "stratonovich"

    def init(self, f: FlatField, t: Tensor, y: Tensor) -> Carry:
        """Return the second state."""
        return (y,)

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`."""
        field, (other,) = stochastic(f), carry
        w = field.wiener(t, dt)
        first = _change(field, t, dt, other, w)
        following = 2.0 * y - other + first
        second = _change(field, t + dt, dt, following, w)
        y1 = y + 0.5 * (first + second)
        error = 0.5 * (second - first)
        return StepResult(y1=y1, error=error, stiffness=None, stages=linear(y, dt, y1), carry=(following,))


def _change(field: StochasticField, t: Tensor, dt: Tensor, y: Tensor, w: Tensor) -> Tensor:
    r"""Return $f \Delta t + g \Delta W$."""
    return field(t, y) * dt.to(y.dtype).unsqueeze(-1) + spread(field, field.diffusion(t, y), w)


def _euler(field: StochasticField, t: Tensor, dt: Tensor, y: Tensor) -> Tensor:
    r"""Return $y + f \Delta t + g \Delta W$."""
    w = field.wiener(t, dt)
    drifted = torch.addcmul(y, dt.to(y.dtype).unsqueeze(-1), field(t, y))
    diffusion = field.diffusion(t, y)
    return torch.addcmul(drifted, diffusion, w) if field.is_diagonal else drifted + spread(field, diffusion, w)
