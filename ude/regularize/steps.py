"""Costs made of what every step says of itself: its error estimate and its stiffness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude.ad.recording import is_transformed
from ude.methods.explicit import ExplicitRungeKutta
from ude.methods.stochastic_runge_kutta import StochasticRungeKutta
from ude.problems import Solution
from ude.regularize.regularizer import Regularizer, check_choice
from ude.regularize.single_step import SingleStep
from ude.solve.interpolant import Interpolant

Reduction: TypeAlias = Literal["mean", "sum", "max"]
Scale: TypeAlias = Literal["tolerance", "raw"]


@dataclass(frozen=True, slots=True)
class ErrorEstimate(Regularizer):
    r"""The local error that the solver estimates, $R_E = \sum_j E_j^p\, |\Delta t_j|$ over accepted steps, or the mean.

    Small where the dynamics let the solver take long steps. It costs no evaluation: every adaptive step makes its
    estimate anyway, and this one is on the autograd graph. Step lengths are constants of the gradient.

    Args:
        scale: `"tolerance"`: $E_j$ is the error ratio of `Steps.error`, at most 1, as in the published code. `"raw"`:
            the root mean square of the estimated error itself, in the unit of the state, as in the published formula;
            it needs an explicit method and `dense=True`. The two want different weights.
        reduce: `"mean"` or `"sum"` over the accepted steps, or the `"max"`.
        power: $p$.

    Raises:
        ValueError: If an argument is not one of these; when called, if the method has no error estimate or its steps
            carry no gradient.

    Example:
        >>> import torch, ude
        >>> decay = ude.ODEProblem(lambda t, y: -y, torch.ones(2), (0.0, 1.0))
        >>> cost = ErrorEstimate()(ude.solve(decay, ude.Tsit5()))

    Reference:
        Pal, Ma, Shah & Rackauckas (2021), Opening the blackbox: accelerating neural differential equations by
        regularizing internal solver heuristics, ICML. The published runs take the mean, with weights from 100 to 10
        (images) and from 1,000 to 100 (PhysioNet).
    """

    scale: Scale = "tolerance"
    reduce: Reduction = "mean"
    power: float = 1

    def __post_init__(self) -> None:
        check_choice("scale", self.scale, ("tolerance", "raw"))
        check_choice("reduce", self.reduce, ("mean", "sum", "max"))
        if not self.power > 0:
            raise ValueError(f"`power` must be positive, got {self.power}.")

    def measure(self, solution: Solution) -> Tensor:
        """Return the cost."""
        self.check_method(solution)
        error = solution.steps.error if self.scale == "tolerance" else _raw_error(solution)
        _check_recorded(solution, error)
        return reduced(self._of_step(error, solution.steps.dt), solution, self.reduce)

    def of_single(self, step: SingleStep) -> Tensor:
        """Return the cost of a step that was repeated, shape `(batch,)`."""
        return self._of_step(step.error if self.scale == "tolerance" else step.raw_error, step.dt)

    def check_method(self, solution: Solution) -> None:
        """Raise `ValueError` if the method has no error estimate."""
        _check_error_estimate(solution)

    def _of_step(self, error: Tensor, dt: Tensor) -> Tensor:
        r"""Return $E^p\, |\Delta t|$."""
        return (error if self.power == 1 else error**self.power) * dt.detach().abs()


@dataclass(frozen=True, slots=True)
class StiffnessEstimate(Regularizer):
    r"""The stiffness that the solver estimates, $R_S = \max_j S_j$ over accepted steps, or their mean or sum.

    $S_j$ is an estimate of the largest rate of the dynamics, in 1 per unit of time; for explicit methods
    $\lVert k_s - k_{s-1} \rVert / \lVert g_s - g_{s-1} \rVert$ from the last two stages. It costs no evaluation.

    Args:
        reduce: `"max"`, `"mean"` or `"sum"` over the accepted steps.

    Raises:
        ValueError: If `reduce` is not one of these; when called, if the method has no stiffness estimate or its steps
            carry no gradient.

    Example:
        >>> import torch, ude
        >>> decay = ude.ODEProblem(lambda t, y: -3.0 * y, torch.ones(2).double(), (0.0, 1.0))
        >>> round(float(StiffnessEstimate()(ude.solve(decay, ude.Tsit5()))), 6)
        3.0

    Reference:
        Pal et al. (2021); Hairer & Wanner, Solving ordinary differential equations II, section IV.2. The published runs
        divide by the length of the stability region, 3.5068 for `Tsit5`, with weight 0.1 (images) and 10 (PhysioNet):
        0.0285 and 2.85 here.
    """

    reduce: Reduction = "max"

    def __post_init__(self) -> None:
        check_choice("reduce", self.reduce, ("mean", "sum", "max"))

    def measure(self, solution: Solution) -> Tensor:
        """Return the cost."""
        stiffness = solution.steps.stiffness
        self.check_method(solution)
        _check_recorded(solution, stiffness)
        return reduced(stiffness, solution, self.reduce)

    def of_single(self, step: SingleStep) -> Tensor:
        """Return the stiffness of a step that was repeated, shape `(batch,)`."""
        return step.stiffness

    def check_method(self, solution: Solution) -> None:
        """Raise `ValueError` if the method has no stiffness estimate."""
        _check_stiffness_estimate(solution)


def reduced(values: Tensor, solution: Solution, reduce: Reduction) -> Tensor:
    """Reduce one number per step over the accepted steps of every sample, then take the mean over the samples."""
    accepted = solution.steps.accepted
    if len(values) == 0:
        return values.sum()
    kept = torch.where(accepted, values, 0.0)
    if reduce == "max":
        return kept.amax(0).mean()
    total = kept.sum(0)
    return (total / accepted.sum(0).clamp(min=1) if reduce == "mean" else total).mean()


def _raw_error(solution: Solution) -> Tensor:
    r"""Return the root mean square of $\Delta t \sum_i b^{err}_i k_i$ for every attempt, shaped as `Steps.error`."""
    method, interpolant = solution.method, solution.interpolant
    if not isinstance(method, ExplicitRungeKutta):
        raise ValueError(
            f"`scale='raw'` needs an explicit Runge-Kutta method, whose error is a sum of its stages, got {method}. "
            "Use `scale='tolerance'`, or a method such as `Tsit5()`."
        )
    if not isinstance(interpolant, Interpolant):
        raise ValueError(
            "`scale='raw'` needs the stages of the steps, which this solve did not keep. Solve with `dense=True` and "
            "`adjoint=Direct()`, or use `scale='tolerance'`."
        )
    trace = interpolant.trace
    if trace is None or method.tableau.b_err is None:
        return solution.steps.error
    _, stages = trace.store.starts(range(len(trace.t)))
    weights = stages.new_tensor(method.tableau.b_err)
    error = trace.dt.detach().unsqueeze(-1) * torch.einsum("s,rbsn->rbn", weights, stages)
    return root_mean_square(error).reshape(solution.steps.error.shape)


def root_mean_square(x: Tensor) -> Tensor:
    """Return the root mean square over the last axis, with gradient zero, not NaN, where it vanishes."""
    square = (x * x.conj()).real.mean(-1)
    usable = square > 0.0
    return torch.where(usable, torch.where(usable, square, 1.0).sqrt(), 0.0)


def _check_error_estimate(solution: Solution) -> None:
    if getattr(solution.method, "error_order", None) is None:
        raise ValueError(
            f"`ErrorEstimate` needs steps with an error estimate, got those of {solution.method}. Use a method that "
            "controls its steps, such as `Tsit5()`, or `TaylorEnergy`, which works with every method."
        )


def _check_stiffness_estimate(solution: Solution) -> None:
    method, steps = solution.method, solution.steps
    estimates = isinstance(method, ExplicitRungeKutta | StochasticRungeKutta) and method.estimates_stiffness
    if estimates or is_transformed() or bool(steps.stiffness.any()) or not bool(steps.accepted.any()):
        return
    raise ValueError(
        f"`StiffnessEstimate` needs steps with a stiffness estimate, got those of {method}. Use `Tsit5()`, `Dopri5()`, "
        "`Vern7()` or a Rosenbrock method, or `JacobianFrobenius`, which works with every method."
    )


def _check_recorded(solution: Solution, values: Tensor) -> None:
    """Raise if the states carry a gradient but the steps do not, as those of continuous adjoints."""
    recorded = any(x.requires_grad for x in pytree.tree_leaves(solution.ys))
    if recorded and torch.is_grad_enabled() and len(values) and not values.requires_grad:
        raise ValueError(
            "The steps of this solution carry no gradient: a continuous adjoint differentiates the states only. Solve "
            "with `adjoint=Direct()` or `Checkpointed()`, or take `Local(...)` of the cost, which repeats single steps."
        )
