"""What the methods for stochastic differential equations share: nothing is carried over, and lines join the steps."""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.methods.method import Carry, Method, StepResult
from ude.methods.stochastic import Interpretation, Noise, StochasticField


@runtime_checkable
class StochasticMethod(Method, Protocol):
    """A method whose steps take a `StochasticField`, and the problems that it can solve."""

    @property
    def noises(self) -> tuple[Noise, ...]:
        """The kinds of noise it solves."""
        ...

    @property
    def interpretation(self) -> Interpretation | None:
        """The stochastic integral that it approximates; None if it serves both."""
        ...


class LinearSteps:
    """Base of methods that begin every step afresh and are linear between the ends of a step.

    A path of Brownian motion has no derivative: what a polynomial through more points would gain is noise.
    """

    __slots__ = ()

    @property
    def init_evaluations(self) -> int:
        """None."""
        return 0

    @property
    def dense_evaluations(self) -> int:
        """None."""
        return 0

    def init(self, f: FlatField, t: Tensor, y: Tensor) -> Carry:
        """Return nothing: the last stage of a step says nothing of the noise in the next one."""
        return ()

    def dense_stages(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, step: StepResult) -> tuple[Tensor, ...]:
        """Return the one stage there is, see `linear`."""
        return step.stages

    def dense_weights(self, theta: Tensor) -> Tensor:
        r"""Weight of that stage, $\theta$, shape `(1, *theta.shape)`.

        Args:
            theta: Fraction of the step, between 0 and 1; real, any shape.
        """
        return theta.unsqueeze(0)


def stochastic(f: FlatField) -> StochasticField:
    """Return the vector field that a loop hands to a method as what `solve` has made it for a `StochasticMethod`."""
    return cast("StochasticField", f)


def linear(y: Tensor, dt: Tensor, y1: Tensor) -> tuple[Tensor, ...]:
    r"""Return the stage of a line between the ends of a step, $(y_1 - y) / \Delta t$; zero where $\Delta t = 0$.

    Args:
        y: State at the start, shape `(batch, state)`.
        dt: Signed length of the step, shape `(batch,)`.
        y1: State at the end, shape `(batch, state)`.
    """
    stands = dt == 0.0
    rate = (y1 - y) / torch.where(stands, 1.0, dt).to(y.dtype).unsqueeze(-1)
    return (torch.where(stands.unsqueeze(-1), 0.0, rate),)
