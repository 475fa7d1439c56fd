r"""Nonlinear least squares for many problems at once (Levenberg-Marquardt)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class ResidualFunction(Protocol):
    """Residuals of B independent problems that share one layout of parameters."""

    def residuals(self, theta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residuals of some problems, not finite where they cannot be computed.

        Args:
            theta: Parameters of the problems asked for, shape `(rows, parameters)`.
            rows: Which problems these are, shape `(rows,)`.

        Returns:
            Residuals `(rows, residuals)`, and anything `jacobian` can use, with the same first axis.
        """
        ...

    def jacobian(self, theta: Tensor, rows: Tensor, memo: Tensor) -> Tensor:
        """Return the derivative of the residuals, shape `(rows, residuals, parameters)`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Minimum:
    """Where the iteration ended.

    Args:
        theta: Parameters, shape `(problems, parameters)`.
        residuals: Residuals there, shape `(problems, residuals)`; not finite for a problem that cannot be started.
        jacobian: Derivative there, shape `(problems, residuals, parameters)`.
        converged: Whether the sum of squares no longer fell, shape `(problems,)`.
    """

    theta: Tensor
    residuals: Tensor
    jacobian: Tensor
    converged: Tensor

    @property
    def cost(self) -> Tensor:
        """Sum of squared residuals, infinite where they are not finite, shape `(problems,)`."""
        return _cost(self.residuals)


@dataclass(frozen=True, slots=True, kw_only=True)
class LevenbergMarquardt:
    r"""Damped Gauss-Newton steps, $(J^T J + \lambda D)\,\delta = -J^T r$.

    $D$ is the running maximum of the diagonal of $J^T J$.

    A step is taken where it lowers the sum of squares; $\lambda$ then falls by an amount that depends on how well
    the linear model predicted the gain (Nielsen's rule), otherwise it grows. Every problem of the batch has its own
    $\lambda$ and leaves the iteration on its own. A trial point whose residuals are not finite counts as a rise.

    Args:
        max_iter: Most trial steps.
        tolerance: A problem has converged when the predicted and the actual relative fall of its sum of squares are
            below this.
        damping: First $\lambda$.
        hopeless: After five steps, give up problems whose sum of squares is more than this many times the lowest of
            the batch: for problems that are candidates for the same data.

    Reference:
        More (1978), The Levenberg-Marquardt algorithm: implementation and theory; Madsen, Nielsen and Tingleff (2004),
        Methods for non-linear least squares problems, algorithm 3.16.
    """

    max_iter: int = 50
    tolerance: float = 1e-9
    damping: float = 1e-3
    hopeless: float = math.inf

    @torch.no_grad()
    def minimize(self, function: ResidualFunction, theta: Tensor, free: Tensor) -> Minimum:
        """Minimise the sum of squares of every problem.

        Args:
            function: The residuals and their derivative.
            theta: Where to start, shape `(problems, parameters)`.
            free: Which parameters may change, bool, same shape.
        """
        theta = theta.clone()
        everything = torch.arange(len(theta), device=theta.device)
        residuals, memo = function.residuals(theta, everything)
        cost = _cost(residuals)
        jacobian = residuals.new_zeros(*residuals.shape, theta.shape[1])
        live = everything[cost.isfinite()]
        if len(live):
            jacobian[live] = function.jacobian(theta[live], live, memo[live])
        damping = torch.full_like(cost, self.damping)
        growth = torch.full_like(cost, 2.0)
        scale = torch.zeros_like(theta)
        converged = torch.zeros_like(cost, dtype=torch.bool)
        for iteration in range(self.max_iter):
            if not len(live):
                break
            step, predicted, scale[live] = _step(
                jacobian[live], residuals[live], free[live], damping[live], scale[live]
            )
            trial = theta[live] + step
            new_residuals, new_memo = function.residuals(trial, live)
            new_cost = _cost(new_residuals)
            fall = cost[live] - new_cost
            taken = fall > 0
            negligible = predicted <= self.tolerance * cost[live]
            converged[live] |= negligible & (fall.abs() <= self.tolerance * cost[live])
            damping[live], growth[live] = _adapt(damping[live], growth[live], fall / predicted.clamp(min=1e-300), taken)
            rows = live[taken]
            if len(rows):
                theta[rows], residuals[rows], cost[rows] = trial[taken], new_residuals[taken], new_cost[taken]
                jacobian[rows] = function.jacobian(theta[rows], rows, new_memo[taken])
            # A damping this large makes a step below rounding: no descent is left.
            stuck = damping[live] > 1e12
            converged[live] |= stuck
            live = live[~converged[live]]
            if iteration >= 5 and self.hopeless < math.inf:
                live = live[cost[live] <= self.hopeless * cost.min()]
        return Minimum(theta=theta, residuals=residuals, jacobian=jacobian, converged=converged)


def covariance(jacobian: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the covariance $(J^T J)^{-1}$ of a least-squares estimate, and how well it is determined.

    Directions that the residuals do not determine at all are left out (pseudo-inverse).

    Args:
        jacobian: Derivative of the residuals in units of their standard deviation, shape
            `(*batch, residuals, parameters)`.

    Returns:
        Covariance `(*batch, parameters, parameters)`, and the singular values of $J$ with columns of unit length,
        descending: the last is near zero where the effects of some parameters cannot be told apart.
    """
    length = jacobian.norm(dim=-2, keepdim=True).clamp(min=1e-300)
    unit = jacobian / length
    inverse = torch.linalg.pinv(unit.mT @ unit, hermitian=True, rtol=1e-14)
    return inverse / (length * length.mT), torch.linalg.svdvals(unit)


def _step(
    jacobian: Tensor, residuals: Tensor, free: Tensor, damping: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the step, the fall of the sum of squares that the linear model predicts, and the new scale."""
    masked = jacobian * free.unsqueeze(1)
    normal = masked.mT @ masked
    gradient = (masked.mT @ residuals.unsqueeze(-1)).squeeze(-1)
    scale = torch.maximum(scale, normal.diagonal(dim1=-2, dim2=-1))
    # A parameter that changes nothing, or may not change, stays where it is.
    idle = ~free | (scale <= 0)
    damped = normal + torch.diag_embed(damping.unsqueeze(-1) * scale + idle)
    step = torch.where(idle, 0.0, -torch.linalg.solve_ex(damped, gradient.unsqueeze(-1)).result.squeeze(-1))
    predicted = (step * (damping.unsqueeze(-1) * scale * step - gradient)).sum(-1)
    return step.nan_to_num(0.0), predicted.nan_to_num(0.0), scale


def _adapt(damping: Tensor, growth: Tensor, ratio: Tensor, taken: Tensor) -> tuple[Tensor, Tensor]:
    """Return damping and its growth factor after a step whose fall was `ratio` times the predicted one."""
    shrink = (1 - (2 * ratio.nan_to_num(0.0).clamp(0.0, 2.0) - 1) ** 3).clamp(min=0.1)
    damping = torch.where(taken, (damping * shrink).clamp(min=1e-14), damping * growth)
    return damping, torch.where(taken, 2.0, 2.0 * growth)


def _cost(residuals: Tensor) -> Tensor:
    return residuals.square().sum(-1).nan_to_num(nan=torch.inf)
