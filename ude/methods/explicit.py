"""One step of any explicit Runge-Kutta method."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.ad.recording import is_transformed
from ude.methods.combination import advance, scaled_combination
from ude.methods.method import Carry, StepResult
from ude.methods.stiffness import rate
from ude.methods.tableau import Tableau


@dataclass(frozen=True, slots=True)
class ExplicitRungeKutta:
    r"""An explicit Runge-Kutta method given by its coefficients.

    The step is a pure function of tensors. Stages are combined by fused operations that skip zero
    coefficients: a stage with $m$ non-zero coefficients costs $m$ elementwise operations and one evaluation.

    Args:
        tableau: The coefficients; checked when the tableau was made.

    Example:
        >>> heun3 = Tableau(
        ...     name="Heun3", a=[[], [1 / 3], [0, 2 / 3]], b=[1 / 4, 0, 3 / 4], c=[0, 1 / 3, 2 / 3], order=3
        ... )
        >>> method = ExplicitRungeKutta(heun3)
        >>> t, dt, y = torch.zeros(1), torch.ones(1), torch.ones(1, 1)
        >>> method.step(lambda t, y: -y, t, dt, y, method.init(lambda t, y: -y, t, y)).y1
        tensor([[0.3333]])
    """

    tableau: Tableau

    def __str__(self) -> str:
        return self.tableau.name

    @property
    def order(self) -> int:
        """Order of convergence."""
        return self.tableau.order

    @property
    def error_order(self) -> int | None:
        """The error estimate shrinks like `dt ** error_order`; None for a method without an estimate."""
        embedded = self.tableau.embedded_order
        return None if embedded is None else min(embedded, self.tableau.order) + 1

    @property
    def dense_order(self) -> int | None:
        """Order of the continuous extension: its local error is like `dt ** (dense_order + 1)`."""
        return self.tableau.dense_order

    @property
    def stability_size(self) -> float | None:
        """Length of the stability region along the negative real axis; None if not known."""
        return self.tableau.stability_size

    @property
    def evaluations(self) -> int:
        """Evaluations of the vector field in one step: one per stage, less the one carried over."""
        return len(self.tableau.b) - self.tableau.fsal

    @property
    def init_evaluations(self) -> int:
        """Evaluations of the vector field in `init`."""
        return int(self.tableau.fsal)

    @property
    def dense_evaluations(self) -> int:
        """Extra evaluations made by `dense_stages`."""
        return len(self.tableau.extra_c)

    def init(self, f: FlatField, t: Tensor, y: Tensor) -> Carry:
        """Return the first stage if the method carries it from step to step, else nothing."""
        return (f(t, y),) if self.tableau.fsal else ()

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`.

        Args:
            f: Vector field, called as `f(t, y)`.
            t: Start of the step, shape `(batch,)`.
            dt: Signed length of the step, shape `(batch,)`.
            y: State at `t`, shape `(batch, state)`.
            carry: From `init` or from the previous accepted step.

        Returns:
            The new state, the error estimate, the stiffness estimate and the stages.
        """
        tableau = self.tableau
        length = dt.to(y.dtype).unsqueeze(-1)
        stages = [carry[0] if tableau.fsal else f(t, y)]
        previous, argument = y, y
        for row, node in zip(tableau.a[1:], tableau.c[1:], strict=True):
            previous, argument = argument, advance(y, length, row, stages)
            stages.append(f(torch.add(t, dt, alpha=node), argument))
        return StepResult(
            y1=argument if tableau.fsal else advance(y, length, tableau.b, stages),
            error=None if tableau.b_err is None else length * _combination(tableau.b_err, stages),
            stiffness=rate(stages[-1] - stages[-2], argument - previous) if self.estimates_stiffness else None,
            stages=tuple(stages),
            carry=(stages[-1],) if tableau.fsal else (),
        )

    def dense_stages(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, step: StepResult) -> tuple[Tensor, ...]:
        """Return the stages that `dense_weights` refers to; `dense_evaluations` evaluations."""
        length = dt.to(y.dtype).unsqueeze(-1)
        stages = list(step.stages)
        for row, node in zip(self.tableau.extra_a, self.tableau.extra_c, strict=True):
            stages.append(f(torch.add(t, dt, alpha=node), advance(y, length, row, stages)))
        return tuple(stages)

    def dense_weights(self, theta: Tensor) -> Tensor:
        r"""Weights $b_i(\theta)$ of the continuous extension, shape `(stages, *theta.shape)`.

        Args:
            theta: Fraction of the step, between 0 and 1; real, any shape.
        """
        dense = self.tableau.dense
        assert dense is not None  # the tableau always has one
        # Coefficients reach 1e3 in methods of high order and cancel: single precision would lose four digits.
        precise = theta if theta.device.type == "mps" else theta.double()
        # What is made inside of a transform may not outlive it.
        make = _coefficients.__wrapped__ if is_transformed() else _coefficients
        coefficients = make(dense, precise.dtype, theta.device)
        powers = [precise]
        for _ in dense[0][1:]:
            powers.append(powers[-1] * precise)
        weights = (coefficients @ torch.stack(powers).reshape(len(powers), -1)).reshape(-1, *theta.shape)
        return weights.to(theta.dtype)

    def dense_weight_rows(self, theta: Tensor) -> list[Tensor]:
        """Return the same weights one by one, written out for the compiler."""
        precise = theta if theta.device.type == "mps" else theta.double()
        assert self.tableau.dense is not None  # the tableau always has one
        return [_polynomial(row, precise).to(theta.dtype) for row in self.tableau.dense]

    @property
    def estimates_stiffness(self) -> bool:
        """The last two stages are taken at the end of the step, where only their states differ."""
        nodes = self.tableau.c
        return len(nodes) > 1 and nodes[-2] == nodes[-1] == 1.0


@functools.lru_cache(maxsize=64)
def _coefficients(rows: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(rows, dtype=dtype, device=device)


def _polynomial(coefficients: Sequence[float], theta: Tensor) -> Tensor:
    r"""Return $\sum_j c_j \theta^{j+1}$."""
    total = torch.full_like(theta, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * theta + coefficient
    return total * theta


def _combination(weights: Sequence[float], stages: Sequence[Tensor]) -> Tensor:
    r"""Return $\sum_i w_i k_i$."""
    total, scale = scaled_combination(weights, stages)
    return total * scale
