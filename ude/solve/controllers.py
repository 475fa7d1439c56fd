"""How long the next step is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

Memory: TypeAlias = tuple[Tensor, ...]
"""What a controller remembers of earlier steps; tensors of shape `(batch,)`, never on the autograd graph."""


class Decision(NamedTuple):
    """What becomes of a trial step.

    Args:
        accept: True where the step is taken, shape `(batch,)`.
        factor: Length of the next trial step over that of this one, shape `(batch,)`.
        memory: For the next decision.
    """

    accept: Tensor
    factor: Tensor
    memory: Memory


@runtime_checkable
class Controller(Protocol):
    """Decides on a trial step; a frozen value, no branch on data."""

    @property
    def needs_error(self) -> bool:
        """It cannot work with a method that has no error estimate."""
        ...

    @property
    def accepts_shortest(self) -> bool:
        """A finite step of the length `min_step` is taken whatever its error."""
        ...

    def init(self, like: Tensor) -> Memory:
        """Return the memory before the first step; `like` has the shape, dtype and device of the error ratio."""
        ...

    def decide(self, error: Tensor, finite: Tensor, memory: Memory, error_order: float | None) -> Decision:
        """Decide from the error ratio, which is accepted when at most 1, where `finite`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PID:
    r"""Proportional-integral-derivative control of the error ratio $E$.

    With $w = 1/E$ and $k$ the order of the error estimate, the next step is longer by the factor

    $$ s\; w_n^{(P + I + D)/k}\; w_{n-1}^{-(P + 2D)/k}\; w_{n-2}^{D/k} $$

    clipped to `[min_factor, max_factor]`. After a rejected step the factor is that of the I controller, and the
    step after it does not grow. Where the error is not finite the step shrinks by `min_factor` and is tried again.
    The defaults are the coefficients 0.49, 0.34, 0.10 of Kennedy, Carpenter and Lewis.

    Args:
        proportional: $P$.
        integral: $I$.
        derivative: $D$.
        safety: $s$.
        min_factor: Least factor.
        max_factor: Largest factor.
        accepts_shortest: Take finite steps of the length `min_step` whatever their error, instead of giving up.

    Reference:
        Soderlind (2003), Digital filters in adaptive time-stepping, ACM Trans. Math. Softw. 29(1), 1-26.
        Kennedy, Carpenter & Lewis (2000), Low-storage explicit Runge-Kutta schemes, Appl. Numer. Math. 35, 177-219.
    """

    proportional: float = 0.14
    integral: float = 0.25
    derivative: float = 0.10
    safety: float = 0.9
    min_factor: float = 0.2
    max_factor: float = 10.0
    accepts_shortest: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.safety < 1 and 0 < self.min_factor < 1 <= self.max_factor):
            raise ValueError(
                "A step controller needs 0 < safety < 1 and 0 < min_factor < 1 <= max_factor, got "
                f"{self.safety}, {self.min_factor}, {self.max_factor}."
            )

    @property
    def needs_error(self) -> bool:
        """A method without an error estimate cannot be controlled."""
        return True

    def init(self, like: Tensor) -> Memory:
        """Return two inverse errors of 1 and the flag of a rejected step."""
        one = torch.ones_like(like)
        hold = torch.zeros_like(like, dtype=torch.bool)
        return (one, one, hold) if self.derivative else (one, hold) if self.proportional else (hold,)

    def decide(self, error: Tensor, finite: Tensor, memory: Memory, error_order: float | None) -> Decision:
        """Accept where the error ratio is at most 1."""
        assert error_order is not None
        *history, hold = memory
        accept = finite & (error <= 1.0)
        inverse = error.clamp(min=1e-10).reciprocal()
        factor = self.safety * inverse ** (1.0 / error_order)
        if (self.proportional, self.integral, self.derivative) != (0.0, 1.0, 0.0):
            factor = torch.where(accept, self._filter(inverse, history, error_order), factor)
        factor = torch.where(accept & hold, factor.clamp(max=1.0), factor)
        factor = torch.where(finite, factor.clamp(self.min_factor, self.max_factor), self.min_factor)
        if history:
            # One very small error says little about the next: it is remembered as 1e-4 at least.
            shifted = (inverse.clamp(max=1e4), *history[:-1])
            history = [torch.where(accept, newer, older) for newer, older in zip(shifted, history, strict=True)]
        return Decision(accept, factor, (*history, ~accept))

    def _filter(self, inverse: Tensor, history: list[Tensor], error_order: float) -> Tensor:
        """Return the factor after an accepted step."""
        p, i, d = self.proportional, self.integral, self.derivative
        factor = self.safety * inverse ** ((p + i + d) / error_order)
        for past, exponent in zip(history, (-(p + 2 * d) / error_order, d / error_order), strict=False):
            factor = factor * past**exponent
        return factor


def I(*, safety: float = 0.9, min_factor: float = 0.2, max_factor: float = 10.0) -> PID:  # noqa: E743
    r"""Integral control, the textbook rule: the next step is longer by $s\,E^{-1/k}$.

    Args:
        safety: $s$.
        min_factor: Least factor.
        max_factor: Largest factor.

    Example:
        >>> I().integral
        1.0
    """
    return PID(
        proportional=0.0,
        integral=1.0,
        derivative=0.0,
        safety=safety,
        min_factor=min_factor,
        max_factor=max_factor,
    )


def PI(*, safety: float = 0.9, min_factor: float = 0.2, max_factor: float = 10.0) -> PID:
    r"""Proportional-integral control, $s\,E_n^{-0.7/k} E_{n-1}^{0.4/k}$: smoother steps where stability limits them.

    Args:
        safety: $s$.
        min_factor: Least factor.
        max_factor: Largest factor.

    Reference:
        Hairer & Wanner (1996), Solving Ordinary Differential Equations II, section IV.2.
    """
    return PID(
        proportional=0.4,
        integral=0.3,
        derivative=0.0,
        safety=safety,
        min_factor=min_factor,
        max_factor=max_factor,
    )


@dataclass(frozen=True, slots=True)
class FixedStep:
    """Constant steps of the length `dt` given to `solve`; the last one ends at `t1`. Every finite step is accepted."""

    @property
    def needs_error(self) -> bool:
        """Any method will do."""
        return False

    @property
    def accepts_shortest(self) -> bool:
        """Every step is taken in any case."""
        return False

    def init(self, like: Tensor) -> Memory:
        """Remember nothing."""
        return ()

    def decide(self, error: Tensor, finite: Tensor, memory: Memory, error_order: float | None) -> Decision:
        """Accept every finite step."""
        return Decision(finite, torch.ones_like(error), memory)
