"""Sums of stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def combination(weights: Sequence[float], stages: Sequence[Tensor]) -> Tensor:
    r"""Return $\sum_i w_i k_i$, skipping zero weights."""
    total: Tensor | None = None
    for weight, stage in zip(weights, stages, strict=True):
        if weight != 0.0:
            total = stage * weight if total is None else torch.add(total, stage, alpha=weight)
    return torch.zeros_like(stages[0]) if total is None else total
