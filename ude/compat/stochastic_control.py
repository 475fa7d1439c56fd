"""Steps that all rows of a batch make together, as torchsde's do."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ude.solve import PID
from ude.solve.controllers import Decision, Memory

RULE = PID(proportional=0.0, integral=1.0, derivative=0.0, accepts_shortest=True)


@dataclass(frozen=True, slots=True)
class Together:
    """One length for the steps of all rows: the root mean square of their error ratios decides for each of them.

    The functions of a torchsde program are given one time for the whole batch.

    Args:
        inner: Decides on what is then the same for all rows.
    """

    inner: PID = RULE

    @property
    def needs_error(self) -> bool:
        """A method without an error estimate cannot be controlled."""
        return True

    @property
    def accepts_shortest(self) -> bool:
        """A step of the length `dt_min` is taken whatever its error."""
        return True

    def init(self, like: Tensor) -> Memory:
        """Return the memory of the rule inside."""
        return self.inner.init(like)

    def decide(self, error: Tensor, finite: Tensor, memory: Memory, error_order: float | None) -> Decision:
        """Decide for all rows alike."""
        shared = error.square().mean().sqrt().expand_as(error)
        return self.inner.decide(shared, finite.all().expand_as(finite), memory, error_order)
