"""A method for expectations: weak order 2, for noise of any kind."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.methods.combination import advance
from ude.methods.method import Carry, StepResult
from ude.methods.stochastic import Interpretation, Noise, StochasticField, spread
from ude.methods.stochastic_steps import LinearSteps, linear, stochastic

QUANTILE = 0.9674215661017010
"""A standard normal number lies beyond it, and below its negative, with probability 1/6 each."""


@dataclass(frozen=True, slots=True)
class RI1(LinearSteps):
    r"""The method RI1 of Roessler for Ito equations: expectations converge with order 2, single paths do not.

    In place of the increments $W_k$ of the noise it takes numbers with the moments that count:
    $\hat I_k = \pm\sqrt{3h}$ with probability 1/6 each, else 0, and $\tilde I_k = \pm\sqrt h$ with probability 1/2
    each. They come from the path, so that the same path gives the same numbers: $\hat I_k$ from $W_k / \sqrt h$, by the
    sixths of the normal distribution that it falls in, $\tilde I_k$ from the sign of the space-time Levy area, which is
    independent of the increment. With $g^k$ the column of the diffusion that goes with the noise $k$ and

    $$ \hat I_{kk} = \tfrac12 (\hat I_k^2 - h), \qquad
       \hat I_{kl} = \tfrac12 (\hat I_k \hat I_l - \tilde I_k \tilde I_l), \qquad
       \hat I_{lk} = \tfrac12 (\hat I_k \hat I_l + \tilde I_k \tilde I_l) \qquad (k < l), $$

    $$ H_2 = y + \tfrac23 h f_1 + \sum_k g^k_1 \hat I_k, \qquad H_3 = y - \tfrac13 h f_1 + h f_2, $$
    $$ H^k_\pm = y + h f_1 \pm \sqrt h\, g^k_1, \qquad
       \hat H^k_\pm = y \pm \sum_{l \ne k} g^l_1 \hat I_{kl} / \sqrt h, $$

    drifts $f_i$ at $t + (0, \tfrac23, \tfrac23) h$, diffusions $g^k_\pm$ at $t + h$ and $\hat g^k_\pm$ at $t$,

    $$ y_1 = y + \tfrac h4 (f_1 + 2 f_2 + f_3)
       + \sum_k \Big[ \tfrac14 (2 g^k_1 + g^k_+ + g^k_-)\, \hat I_k
                    + \tfrac12 (g^k_+ - g^k_-)\, \hat I_{kk} / \sqrt h \Big]
       + \sum_k \Big[ \tfrac14 (\hat g^k_+ + \hat g^k_- - 2 g^k_1)\, \hat I_k
                    + \tfrac12 (\hat g^k_+ - \hat g^k_-)\, \sqrt h \Big]. $$

    The coin of a pair of noises is the product of two. Were it that of one of them, as $2 m - 1$ numbers would have it,
    the integrals of pairs with a noise in common would be correlated, and three noises would leave order 1.

    Three evaluations of the drift. Where the noise is diagonal, with component $i$ of the diffusion a function of
    component $i$ of the state, or scalar, the second sum vanishes: three evaluations of the diffusion; else $4 m + 1$
    for $m$ noises. No error estimate: steps are constant.

    Reference:
        Roessler (2009), Second order Runge-Kutta methods for Ito stochastic differential equations, SIAM J. Numer.
        Anal. 47(3), 1713-1738.
        Milstein & Tretyakov (2004), Stochastic Numerics for Mathematical Physics, Springer: the mixed integrals.
    """

    def __str__(self) -> str:
        return "RI1"

    @property
    def order(self) -> float:
        """Weak order of convergence."""
        return 2.0

    @property
    def error_order(self) -> None:
        """There is no error estimate."""
        return

    @property
    def noises(self) -> tuple[Noise, ...]:
        """The kinds of noise it solves."""
        return ("diagonal", "additive", "scalar", "commutative", "general")

    @property
    def interpretation(self) -> Interpretation:
        """The stochastic integral that it approximates."""
        return "ito"

    @property
    def evaluations(self) -> int:
        """Evaluations of the drift in one step."""
        return 3

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`.

        Args:
            f: A `StochasticField`.
            t: Start of the step, shape `(batch,)`.
            dt: Signed length of the step, shape `(batch,)`.
            y: State at `t`, shape `(batch, state)`.
            carry: Nothing.

        Returns:
            The new state, and the slope of the line between the ends of the step.
        """
        equation = stochastic(f)
        length = dt.to(y.dtype).unsqueeze(-1)
        # The square root has no derivative at zero, where samples that have arrived stand still.
        stands = length == 0.0
        root = torch.where(stands, 0.0, torch.where(stands, 1.0, length.abs()).sqrt())
        increment = equation.increment(t, dt)
        numbers = three_points(increment.w, root)
        drifts = [f(t, y)]
        diffusion = equation.diffusion(t, y)
        later = torch.add(t, dt, alpha=2 / 3)
        drifts.append(f(later, advance(y, length, [2 / 3], drifts) + root * spread(equation, diffusion, numbers)))
        drifts.append(f(later, advance(y, length, [-1 / 3, 1.0], drifts)))
        y1 = advance(y, length, [1 / 4, 1 / 2, 1 / 4], drifts)
        start = torch.addcmul(y, length, drifts[0])
        for k, (g, number) in enumerate(_columns(equation, diffusion, numbers)):
            ahead, behind = (_column(equation, t + dt, start + sign * root * g, k) for sign in (1, -1))
            mean, change = (2 * g + ahead + behind) / 4, (ahead - behind) / 2
            y1 = torch.addcmul(y1, root, mean * number + change * (number.square() - 1) / 2)
        if not equation.is_diagonal and diffusion.shape[-1] > 1:
            y1 = torch.addcmul(y1, root, _mixed(equation, t, y, root, diffusion, numbers, increment.h))
        return StepResult(y1=y1, error=None, stiffness=None, stages=linear(y, dt, y1), carry=())


def three_points(w: Tensor, root: Tensor) -> Tensor:
    r"""Return $\hat I / \sqrt h$: $\sqrt 3$ where $W$ is in its uppermost sixth, $-\sqrt 3$ in the lowest, else 0.

    Args:
        w: Increments, shape `(batch, noise)`.
        root: $\sqrt h$, shape `(batch, 1)`.
    """
    bound = QUANTILE * root
    return sqrt(3) * ((w > bound).to(w.dtype) - (w < -bound).to(w.dtype))


def _columns(equation: StochasticField, diffusion: Tensor, numbers: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the diffusion of each noise and its number; those of a diagonal diffusion all at once."""
    if equation.is_diagonal:
        return [(diffusion, numbers)]
    return [(diffusion[..., k], numbers[:, k : k + 1]) for k in range(diffusion.shape[-1])]


def _column(equation: StochasticField, t: Tensor, y: Tensor, k: int) -> Tensor:
    diffusion = equation.diffusion(t, y)
    return diffusion if equation.is_diagonal else diffusion[..., k]


def _mixed(
    equation: StochasticField, t: Tensor, y: Tensor, root: Tensor, diffusion: Tensor, numbers: Tensor, area: Tensor
) -> Tensor:
    r"""Return the second sum over the noises, over $\sqrt h$."""
    noises = diffusion.shape[-1]
    coins = torch.where(area < 0.0, -1.0, 1.0).to(y.dtype)
    # Entry (k, l) is twice the mixed integral over h; the diagonal is not wanted.
    above = torch.ones(noises, noises, dtype=y.dtype, device=y.device).triu(1)
    even, odd = (x.unsqueeze(-1) * x.unsqueeze(-2) for x in (numbers, coins))
    pairs = even * (above + above.T) - odd * (above - above.T)
    shifts = root.unsqueeze(-1) * torch.einsum("bsl,bkl->bsk", diffusion, pairs) / 2
    total = torch.zeros_like(y)
    for k in range(noises):
        ahead, behind = (equation.diffusion(t, y + sign * shifts[..., k])[..., k] for sign in (1, -1))
        mean, change = (ahead + behind - 2 * diffusion[..., k]) / 4, (ahead - behind) / 2
        total = total + mean * numbers[:, k : k + 1] + change
    return total
