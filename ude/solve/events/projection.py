"""Back to a manifold by Gauss-Newton steps of least length."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from ude import ad
from ude.solve.events.event import ManifoldProjection


def project(event: ManifoldProjection, residual: Callable[[Tensor, Tensor], Tensor], t: Tensor, y: Tensor) -> Tensor:
    r"""Return $y - R^T (R R^T)^{-1} r$, repeated until $r$ is small.

    Args:
        event: Tolerance and number of iterations.
        residual: From `(batch,)` and `(batch, state)` to `(batch, residuals)`.
        t: Times.
        y: States.
    """
    count = 0

    def padded(t: Tensor, y: Tensor) -> Tensor:
        nonlocal count
        value = residual(t, y)
        count = value.shape[1]
        if count > y.shape[1]:
            raise ValueError(f"Expected at most as many residuals as states, {y.shape[1]}, got {count}.")
        rest = torch.zeros_like(y[:, count:])
        return torch.cat([value, rest], dim=1)

    for _ in range(event.iterations):
        value, jacobian, _ = ad.linearise(padded, t, y, rate=False)
        value, rows = value[:, :count], cast(Tensor, jacobian)[:, :count]
        far = value.detach().abs().amax(-1) > event.tolerance
        if not bool(far.any()):
            break
        multipliers = torch.linalg.solve(rows @ rows.mT, value)
        y = torch.where(far.unsqueeze(-1), y - (rows.mT @ multipliers.unsqueeze(-1)).squeeze(-1), y)
    return y
