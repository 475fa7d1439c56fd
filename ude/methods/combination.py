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


def advance(y: Tensor, length: Tensor, weights: Sequence[float], stages: Sequence[Tensor]) -> Tensor:
    r"""Return $y + \Delta t \sum_i w_i k_i$ in fused operations; stages without a weight do not count."""
    if not any(weights):
        return y
    total, scale = scaled_combination(weights, stages)
    return torch.addcmul(y, length, total, value=scale)


def scaled_combination(weights: Sequence[float], stages: Sequence[Tensor]) -> tuple[Tensor, float]:
    r"""Return $\sum_i (w_i / w_1) k_i$ and $w_1$, the first non-zero weight: one operation fewer than the plain sum."""
    terms = [(weight, stage) for weight, stage in zip(weights, stages, strict=False) if weight != 0.0]
    if not terms:
        return torch.zeros_like(stages[0]), 1.0
    scale, total = terms[0]
    for weight, stage in terms[1:]:
        total = torch.add(total, stage, alpha=weight / scale)
    return total, scale
