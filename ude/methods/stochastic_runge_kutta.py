"""What stochastic Runge-Kutta methods have in common, whatever the noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ude.methods.combination import advance
from ude.methods.method import StepResult
from ude.methods.stiffness import rate
from ude.methods.stochastic_steps import LinearSteps, linear
from ude.methods.stochastic_tableau import SRATableau, SRITableau


@dataclass(frozen=True, slots=True)
class StochasticRungeKutta(LinearSteps):
    r"""Base of `SRI` and `SRA`: a tableau, and the error estimate $\delta D + E$.

    The term $E$ is the difference to a method of strong order 1 with the same stages. The other one stands for the
    error of the drift, $D = h\, (\sum_i \alpha_i f_i - f_1)$, the difference to Euler's method, which shrinks like
    $h^{3/2}$ as well. The published $D = h \sum_i f_i$, without `compares_drift`, bounds it from far above, since all
    stages count with the same sign: that estimate shrinks like $h^{3/2}$ where the diffusion prevails, but like $h$
    where the drift does, and solutions come out far more accurate than was asked for.

    Args:
        tableau: The coefficients; checked when the tableau was made.
        delta: Weight of the drift in the error estimate, $\delta$.
        compares_drift: Estimate the error of the drift by comparison; else bound it as published.

    Raises:
        ValueError: If `delta` is negative.

    Reference:
        Rackauckas & Nie (2017), Adaptive methods for stochastic differential equations via natural embeddings and
        rejection sampling with memory, Discrete Contin. Dyn. Syst. B 22(7), 2731-2761.
    """

    tableau: SRITableau | SRATableau
    delta: float = field(default=1.0, kw_only=True)
    compares_drift: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        if not self.delta >= 0.0:
            raise ValueError(
                f"`delta`, the weight of the drift in the error estimate, must be at least 0, got {self.delta}."
            )

    def __str__(self) -> str:
        return self.tableau.name

    @property
    def order(self) -> float:
        """Strong order of convergence."""
        return 1.5

    @property
    def error_order(self) -> float:
        """The error estimate shrinks like `dt ** error_order`, but where the drift prevails and is not compared."""
        return 1.5

    @property
    def evaluations(self) -> int:
        """Evaluations of the drift in one step."""
        return len(self.tableau.alpha)

    @property
    def estimates_stiffness(self) -> bool:
        """The last two drift stages are taken at the end of the step, where only their states differ."""
        return self.tableau.estimates_stiffness

    @property
    def stability_size(self) -> float | None:
        """Length of the stability region along the negative real axis, without noise; None if not known."""
        return self.tableau.stability_size

    def _result(
        self, dt: Tensor, y: Tensor, y1: Tensor, embedded: Tensor, states: Sequence[Tensor], drifts: Sequence[Tensor]
    ) -> StepResult:
        """Return the step to `y1`; `embedded` is $E$, and `drifts` were taken at `states`."""
        length = dt.to(y.dtype).unsqueeze(-1)
        alpha = self.tableau.alpha
        weights = (alpha[0] - 1.0, *alpha[1:]) if self.compares_drift else [1.0] * len(alpha)
        return StepResult(
            y1=y1,
            error=advance(embedded, length, [self.delta * weight for weight in weights], drifts),
            stiffness=rate(drifts[-1] - drifts[-2], states[-1] - states[-2]) if self.estimates_stiffness else None,
            stages=linear(y, dt, y1),
            carry=(),
        )
