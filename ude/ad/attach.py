"""A derivative that is known, in place of the one that would be recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ude.ad.once import once

REASON = (
    "A second derivative was asked for through a result whose first derivative is known but not recorded, such as the "
    "time of an event or a continuous adjoint. Use `adjoint=Direct()` without events where you need one."
)

Pullback = Callable[[Tensor], Sequence[Tensor]]


def attach(value: Tensor, inputs: Sequence[Tensor], pullback: Pullback) -> Tensor:
    r"""Return `value` as a function of `inputs` whose reverse mode is `pullback`.

    Args:
        value: What was computed, detached.
        inputs: What it depends on.
        pullback: Maps a cotangent $\bar y$ to $\bar y^T\, \partial y / \partial x$ for every input. Called at most
            once; second derivatives are not available and raise.

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
        ctx.save_for_backward(*inputs)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        with torch.no_grad():
            results = ctx.pullback(cotangents[0])
        if torch.is_grad_enabled():
            results = [once(REASON, result, cotangents[0], *ctx.saved_tensors) for result in results]
        return (None, None, *results)


def attach_all(
    values: Sequence[Tensor], inputs: Sequence[Tensor], pullback: Callable[[Sequence[Tensor | None]], Sequence[Any]]
) -> tuple[Tensor, ...]:
    r"""Return several values, computed together, as functions of `inputs` whose reverse mode is `pullback`.

    Args:
        values: What was computed, detached; they are not copied.
        inputs: What they depend on.
        pullback: Maps a cotangent for every value, None where there is none, to one for every input, or None. Second
            derivatives are not available and raise.
    """
    return _AttachedTogether.apply(pullback, values, *inputs)  # pyright: ignore[reportReturnType]


class _AttachedTogether(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pullback: Any, values: Sequence[Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.pullback = pullback
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)
        return tuple(values)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        with torch.no_grad():
            results = ctx.pullback(cotangents)
        if torch.is_grad_enabled():
            given = [x for x in cotangents if x is not None]
            results = [None if x is None else once(REASON, x, *given, *ctx.saved_tensors) for x in results]
        return (None, None, *results)
