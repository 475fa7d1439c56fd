"""Values whose derivatives are not known, and must not pass for zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def once(reason: str, value: Tensor, *depends_on: Tensor) -> Tensor:
    """Return a value that depends on others in a way that cannot be differentiated: asking for it raises.

    PyTorch's own `once_differentiable` raises only where the cotangent is differentiated, and drops what comes through
    saved tensors.

    Args:
        reason: Message of the error.
        value: The value.
        depends_on: What it depends on.
    """
    return _Once.apply(reason, value, *depends_on)


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, reason: str, value: Tensor, *depends_on: Tensor) -> Tensor:
        ctx.reason = reason
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise RuntimeError(ctx.reason)
