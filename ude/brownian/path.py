"""What a Brownian path is to those who integrate along it."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Increment(NamedTuple):
    r"""What a Brownian path does from $s$ to $t = s + h$, per sample and component.

    Args:
        w: $W_t - W_s$, of variance $|h|$, shape `(batch, noise)`.
        h: Space-time Levy area $H = \frac1h \int_s^t (W_u - W_s)\, du - \frac12 (W_t - W_s)$, normal with variance
            $|h|/12$ and independent of the increment; same shape. With it $\int_s^t (W_u - W_s)\, du = h (W/2 + H)$.
    """

    w: Tensor
    h: Tensor


@runtime_checkable
class BoundPath(Protocol):
    """A Brownian path of certain samples and components over an interval: the same question has the same answer."""

    def wiener(self, t: Tensor, dt: Tensor) -> Tensor:
        r"""Return the increment alone, $W_{t + dt} - W_t$, shape `(batch, noise)`."""
        ...

    def increment(self, t: Tensor, dt: Tensor) -> Increment:
        """Return what the path does between `t` and `t + dt`, both of shape `(batch,)`; `dt` may be negative."""
        ...
