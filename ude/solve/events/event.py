"""The events a user can ask for: frozen values that say when something happens and what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from ude._checks import positive
from ude._typing import State

Condition: TypeAlias = Callable[..., Tensor]
"""`condition(t, y)` or, if the problem has parameters, `condition(t, y, p)`: one number per sample."""
Affect: TypeAlias = Callable[..., State]
"""`affect(t, y)` or `affect(t, y, p)`: the state after the event, in the structure of `y`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuousEvent:
    r"""An event at the zeros of a function of time and state, $g(t, y) = 0$.

    After every accepted step the sign of $g$ is looked at there and at `interior` points of the step's continuous
    extension; where it has changed, the zero is found on that extension to rounding error, the step ends there, and the
    solve goes on from `affect(t, y)`. Every sample of a batch has its own events and times. A pair of zeros between
    two neighbouring points stays unseen: raise `interior`, or bound the steps by `max_step`.

    Gradients of the time $t^*$ of the event, of the states before and after it and of everything later are exact for
    the steps as they were made, by the implicit function theorem, also in parameters that `condition` and `affect`
    close over:

    $$ dt^* = -\frac{g_y\, dy + g_p\, dp}{g_t + g_y\, \dot y} $$

    Args:
        condition: $g$, called as `condition(t, y)`, or `condition(t, y, p)` for a problem with parameters, with the
            arguments the vector field gets. Returns one number per sample: a tensor of one element, or with
            `batched=True` of shape `(batch,)` or `(batch, 1, ...)`. An event that starts at zero, or has just happened,
            happens again only after $g$ has left zero.
        affect: The state after the event, called alike. Left out, the state stays and the event is only recorded.
        direction: 1 for zeros where $g$ rises in the direction of time, -1 where it falls, 0 for both.
        terminate: The sample ends there.
        interior: Points inside of a step at which the sign is looked at, besides its end.

    Raises:
        ValueError: If the direction is not -1, 0 or 1 or `interior` is negative.

    Example:
        >>> ContinuousEvent(condition=lambda t, y: y[0], affect=lambda t, y: -0.8 * y, direction=-1).terminate
        False
    """

    condition: Condition
    affect: Affect | None = None
    direction: int = 0
    terminate: bool = False
    interior: int = 8

    def __post_init__(self) -> None:
        if self.direction not in (-1, 0, 1):
            raise ValueError(f"`direction` must be -1 (falling), 0 (both) or 1 (rising), got {self.direction!r}.")
        if not isinstance(self.interior, int) or self.interior < 0:
            raise ValueError(f"`interior` must be an integer of at least 0, got {self.interior!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscreteEvent:
    """An event at the end of every accepted step where a condition is true.

    Where a continuous event has ended the step, it looks at the state after that. Its time is that of a step: where it
    matters, use `ContinuousEvent` or `PresetTimes`.

    Args:
        condition: Called as `condition(t, y)` or `condition(t, y, p)`; one boolean per sample.
        affect: The state after the event, called alike; None to leave it.
        terminate: The sample ends there.
    """

    condition: Condition
    affect: Affect | None = None
    terminate: bool = False


@dataclass(frozen=True, slots=True)
class PresetTimes:
    """An event at known times, such as doses of a drug: steps end there exactly, and start again afterwards.

    Args:
        times: Shape `(times,)`, or `(times, batch)` for a batched problem. Times not strictly between start and end of
            a sample have no effect on it.
        affect: The state after the event, called as `affect(t, y)` or `affect(t, y, p)`. None only ends the step there
            and starts again: right for a vector field with a jump in time.
    """

    times: Tensor | Sequence[float]
    affect: Affect | None = None


@dataclass(frozen=True, slots=True)
class Periodic:
    """An event at `start + period`, `start + 2 period`, ... until the end.

    Args:
        period: In the unit of time, positive; counted in the direction of time.
        affect: The state after the event, called as `affect(t, y)` or `affect(t, y, p)`.
        start: Where counting begins; the start of the solve if None.

    Raises:
        ValueError: If the period is not positive and finite.
    """

    period: float
    affect: Affect | None = None
    start: float | None = None

    def __post_init__(self) -> None:
        positive("period", self.period)


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyState:
    r"""End a sample where nothing changes any more: the root mean square of $f_i / (a + r |y_i|)$ is at most 1.

    Costs one evaluation per accepted step.

    Args:
        rtol: $r$, in 1/time.
        atol: $a$, in the unit of the state over time.
    """

    rtol: float = 1e-6
    atol: float = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifoldProjection:
    r"""Bring the state back to a manifold $r(t, y) = 0$, such as a conserved energy, after every accepted step.

    $y \leftarrow y - R^T (R R^T)^{-1} r$ with $R = \partial r / \partial y$, until the residual is small or
    `iterations` are done. Differentiable.

    Args:
        residual: $r$, called as `residual(t, y)` or `residual(t, y, p)` with a tensor state; shape `(residuals,)`, or
            `(batch, residuals)` with `batched=True`.
        tolerance: Largest residual that is left alone.
        iterations: Most Gauss-Newton steps.

    Reference:
        Hairer, Lubich & Wanner (2006), Geometric Numerical Integration, section IV.4.
    """

    residual: Callable[..., Tensor]
    tolerance: float = 1e-12
    iterations: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PositiveDomain:
    """Keep the state from going below zero, for concentrations and populations.

    A step that ends below `-tolerance` in any component is tried again with a shorter one; what rounding and the
    tolerance leave below zero is set to zero.

    Args:
        tolerance: In the unit of the state.

    Reference:
        Shampine, Thompson, Kierzenka & Byrne (2005), Non-negative solutions of ODEs, Appl. Math. Comput. 170, 556-569.
    """

    tolerance: float = 1e-8


Event: TypeAlias = (
    ContinuousEvent | DiscreteEvent | PresetTimes | Periodic | SteadyState | ManifoldProjection | PositiveDomain
)


def arguments(t: Any, y: Any, p: Any) -> tuple[Any, ...]:
    """Return what a user's function is called with."""
    return (t, y) if p is None else (t, y, p)
