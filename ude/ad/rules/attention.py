"""Attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ude.ad.rules.kinds import is_lifted, value_of
from ude.ad.rules.table import register_names


def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    r"""Return $\mathrm{softmax}(s\,Q K^T + M)\,V$; rows that may look at nothing are zero."""
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = torch.matmul(query * factor, key.transpose(-2, -1))
    scores = _masked(scores, attn_mask, is_causal)
    weights = _softmax(scores)
    if dropout_p:
        weights = torch.nn.functional.dropout(weights, dropout_p, True)
    return torch.matmul(weights, value)


def _masked(scores: Any, mask: Any, is_causal: bool) -> Any:
    if is_causal:
        lower = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~lower, -math.inf)
    if mask is None:
        return scores
    if not is_lifted(mask) and mask.dtype == torch.bool:
        return scores.masked_fill(~mask, -math.inf)
    return scores + mask


def _softmax(scores: Any) -> Any:
    values: Tensor = value_of(scores)
    top = values.amax(-1, keepdim=True).detach()
    blind = top == -math.inf
    powers = torch.exp(scores - top.masked_fill(blind, 0.0))
    total = powers.sum(-1, keepdim=True)
    return powers / total.masked_fill(blind, 1.0)


def install() -> None:
    """Enter the rules of this file."""
    register_names(scaled_dot_product_attention, "scaled_dot_product_attention")
