"""Functions and layers of jets as single nodes of autograd, which keep as little as they can.

A network of alternating layers and functions keeps only what each function is applied to. What the function returned,
which the next layer needs for the gradient of its weights, is computed again on the way back.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import linear

from ude.ad.algebra import Algebra
from ude.ad.algebra.expansion import Expansion
from ude.ad.recording import is_transformed
from ude.ad.series import Rule, constant


class Origin(NamedTuple):
    """What a jet is a function of.

    On the way back a layer expands the function again, and leaves the expansion in `kept` for the function's own
    adjoint, which comes next.
    """

    algebra: Algebra
    rule: Rule
    value: Tensor
    slots: Tensor
    kept: list[Expansion]


class Image(NamedTuple):
    """A function of a jet: value, slots and, where it is recorded as one node, the argument."""

    value: Tensor
    slots: Tensor | None
    origin: Origin | None


def apply(algebra: Algebra, rule: Rule, value: Tensor, slots: Tensor | None) -> Image:
    """Apply an elementwise function to a jet.

    Where autograd alone looks on, the derivative is the algebra's own adjoint, evaluated from the argument; under a
    function transform or the compiler the operations are left for it to see.
    """
    if slots is None:
        y, _ = rule(constant(value))
        return Image(y.primal, None, None)
    if not _is_fused(value, slots):
        return Image(*_image(algebra, rule, value, slots), None)
    origin = Origin(algebra, rule, value, slots, [])
    result = cast("tuple[Tensor, Tensor | None]", _Elementwise.apply(algebra, rule, origin.kept, value, slots))
    return Image(*result, origin)


def linear_layer(
    value: Tensor, slots: Tensor, weight: Tensor, bias: Tensor | None, origin: Origin | None
) -> tuple[Tensor, Tensor]:
    """Put a jet through a linear layer: every slot by itself, the bias only into the value."""
    if origin is None or not _is_fused(value, slots, weight):
        return linear(value, weight, bias), linear(slots, weight)
    algebra, rule, *argument, kept = origin
    return _Layer.apply(algebra, rule, kept, *argument, value, slots, weight, bias)  # pyright: ignore[reportReturnType]


def _is_fused(*tensors: Tensor) -> bool:
    recorded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return recorded and not is_transformed()


def _image(algebra: Algebra, rule: Rule, value: Tensor, slots: Tensor) -> tuple[Tensor, Tensor | None]:
    expansion = algebra.expansion(rule, algebra.blocks(value, slots))
    result = expansion.image()
    expansion.release()
    return result


class _Elementwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, algebra: Algebra, rule: Rule, kept: list[Expansion], value: Tensor, slots: Tensor) -> Any:
        ctx.algebra, ctx.rule, ctx.kept = algebra, rule, kept
        ctx.save_for_backward(value, slots)
        ctx.set_materialize_grads(False)
        return _image(algebra, rule, value, slots)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        value, slots = ctx.saved_tensors
        if bars[0] is None and bars[1] is None:
            return None, None, None, None, None
        expansion = _expanded(ctx, value, slots)
        ctx.kept.clear()
        grad_value, grad_slots = expansion.adjoint(ctx.algebra.blocks(*bars))
        expansion.release()
        fitted = None if grad_value is None else grad_value.sum_to_size(value.shape)
        return None, None, None, fitted, _fitted(grad_slots, slots)


def _expanded(ctx: Any, value: Tensor, slots: Tensor) -> Expansion:
    """Return the expansion left by the layer after it; a new one where it is to be differentiated itself."""
    if ctx.kept and not torch.is_grad_enabled():
        return ctx.kept[0]
    return ctx.algebra.expansion(ctx.rule, ctx.algebra.blocks(value, slots))


class _Layer(torch.autograd.Function):
    """A linear layer of a function of a jet, which keeps the argument of the function."""

    @staticmethod
    def forward(
        ctx: Any,
        algebra: Algebra,
        rule: Rule,
        kept: list[Expansion],
        argument_value: Tensor,
        argument_slots: Tensor,
        value: Tensor,
        slots: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Any:
        ctx.algebra, ctx.rule, ctx.kept = algebra, rule, kept
        ctx.save_for_backward(argument_value, argument_slots, weight)
        ctx.set_materialize_grads(False)
        return linear(value, weight, bias), linear(slots, weight)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        argument_value, argument_slots, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        grad_weight = None
        if needed[7] and any(bar is not None for bar in bars):
            expansion = _expanded(ctx, argument_value, argument_slots)
            if not torch.is_grad_enabled():
                ctx.kept[:] = [expansion]
            pairs = zip(bars, expansion.image(), strict=True)
            parts = [_rows(bar).mT @ _rows(x).conj() for bar, x in pairs if bar is not None and x is not None]
            grad_weight = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        grad_bias = _rows(bars[0]).sum(0) if needed[8] and bars[0] is not None else None
        back = weight.conj()
        grads = [None if bar is None or not need else bar @ back for bar, need in zip(bars, needed[5:7], strict=True)]
        return None, None, None, None, None, *grads, grad_weight, grad_bias


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _fitted(bar: Tensor | None, slots: Tensor) -> Tensor:
    """Return a cotangent with as many slots as the argument has, summed where they were broadcast."""
    if bar is None:
        return torch.zeros_like(slots)
    if len(bar) < len(slots):
        bar = torch.cat([bar, bar.new_zeros((len(slots) - len(bar), *bar.shape[1:]))])
    return bar[: len(slots)].sum_to_size(slots.shape)
