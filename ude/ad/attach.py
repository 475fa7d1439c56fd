"""A derivative that is known, in place of the one that would be recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Pullback = Callable[[Tensor], Sequence[Tensor]]


def attach(value: Tensor, inputs: Sequence[Tensor], pullback: Pullback) -> Tensor:
    r"""Return `value` as a function of `inputs` whose reverse mode is `pullback`.

    Args:
        value: What was computed, detached.
        inputs: What it depends on.
        pullback: Maps a cotangent $\bar y$ to $\bar y^T\, \partial y / \partial x$ for every input. Called at most
            once; second derivatives are not available.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> y = attach(torch.tensor(9.0), [x], lambda cotangent: [cotangent * 6.0])
        >>> y.backward()
        >>> x.grad
        tensor(6.)
    """
    return _Attached.apply(pullback, value, *inputs)


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pullback: Pullback, value: Tensor, *inputs: Tensor) -> Tensor:
        ctx.pullback = pullback
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (None, None, *ctx.pullback(cotangents[0]))
