"""torchdiffeq's step control."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ude.compat.callbacks import Watch
from ude.solve.controllers import Decision, Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    r"""Integral control of the error ratio $E$: the next step is longer by $s\,E^{-1/k}$, within bounds.

    The factor is at most `ifactor`, at least 1 after an accepted step and at least `dfactor` after a rejected one.
    Where the error is not finite the step shrinks by `dfactor` and is tried again.

    Args:
        safety: $s$.
        ifactor: Largest factor.
        dfactor: Least factor after a rejection.
        watch: To be told of every decision.
    """

    safety: float = 0.9
    ifactor: float = 10.0
    dfactor: float = 0.2
    watch: Watch | None = None

    @property
    def needs_error(self) -> bool:
        """A method without an error estimate cannot be controlled."""
        return True

    @property
    def accepts_shortest(self) -> bool:
        """A step of the least length is taken whatever its error."""
        return True

    def init(self, like: Tensor) -> Memory:
        """Remember nothing."""
        return ()

    def decide(self, error: Tensor, finite: Tensor, memory: Memory, error_order: float | None) -> Decision:
        """Accept where the error ratio is at most 1."""
        assert error_order is not None
        accept = finite & (error <= 1.0)
        if self.watch is not None:
            self.watch.decided(accepted=bool(accept.all()))
        ideal = self.safety * error.clamp(min=torch.finfo(error.dtype).tiny) ** (-1.0 / error_order)
        least = torch.where(error < 1.0, 1.0, self.dfactor)
        factor = torch.maximum(ideal, least).clamp(max=self.ifactor)
        return Decision(accept, torch.where(finite, factor, self.dfactor), memory)
