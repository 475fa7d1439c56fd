"""Functions and layers of jets as single nodes of autograd, which keep as little as they can.

A network of alternating layers and functions keeps only what each function is applied to. What the function returned,
which the next layer needs for the gradient of its weights, is computed again on the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import CellType, FunctionType
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from ude.ad.algebra import Algebra
from ude.ad.algebra.expansion import Expansion
from ude.ad.recording import is_compiled_for_autograd, is_transformed
from ude.ad.series import Rule, constant

Constants: TypeAlias = "Sequence[tuple[Tensor, int]]"
"""Tensors that a rule closes over, with their versions."""


class Origin(NamedTuple):
    """What a jet is a function of.

    On the way back a layer expands the function again, and leaves the expansion in `kept` for the function's own
    adjoint, which comes next.
    """

    algebra: Algebra
    rule: Rule
    value: Tensor
    slots: Tensor
    kept: Kept


class Kept:
    """The expansion of a function, from the backward pass of the layer after it; let go of together with the graph.

    Args:
        constants: What the function closes over.
    """

    __slots__ = ("constants", "expansion")

    def __init__(self, constants: Constants) -> None:
        self.constants = constants
        self.expansion: Expansion | None = None

    def release(self) -> None:
        """Break the circles in which the series of an expansion refer to one another."""
        if self.expansion is not None:
            self.expansion.release()
            self.expansion = None

    def __del__(self) -> None:
        self.release()


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
        return Image(*_plain(algebra, rule, value, slots), None)
    origin = Origin(algebra, rule, value, slots, Kept(_constants(rule)))
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


def _plain(algebra: Algebra, rule: Rule, value: Tensor, slots: Tensor) -> tuple[Tensor, Tensor | None]:
    """Apply a function by plain operations; the compiler is told to compute them again on the way back."""
    if not (torch.compiler.is_compiling() and torch.is_grad_enabled() and is_compiled_for_autograd()):
        return _image(algebra, rule, value, slots)
    return checkpoint(lambda v, s: _image(algebra, rule, v, s), value, slots, use_reentrant=False)


def _image(algebra: Algebra, rule: Rule, value: Tensor, slots: Tensor) -> tuple[Tensor, Tensor | None]:
    expansion = algebra.expansion(rule, value, slots)
    result = expansion.image()
    expansion.release()
    return result


class _Elementwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, algebra: Algebra, rule: Rule, kept: Kept, value: Tensor, slots: Tensor) -> Any:
        ctx.algebra, ctx.rule, ctx.kept = algebra, rule, kept
        ctx.save_for_backward(value, slots)
        ctx.set_materialize_grads(False)
        return _image(algebra, rule, value, slots)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        value, slots = ctx.saved_tensors
        if bars[0] is None and bars[1] is None:
            return None, None, None, None, None
        _check_unchanged(ctx.kept.constants)
        with torch.set_grad_enabled(torch.is_grad_enabled() or _is_batched(bars)):  # no work in place on batches
            expansion = _expanded(ctx, value, slots)
            grad_value, grad_slots = expansion.adjoint(*bars)
            if grad_value is not None and grad_value.shape != value.shape:
                grad_value = grad_value.sum_to_size(value.shape)
            result = None, None, None, grad_value, _fitted(grad_slots, slots)
        if expansion is ctx.kept.expansion:
            ctx.kept.release()
        else:
            expansion.release()
        return result


def _expanded(ctx: Any, value: Tensor, slots: Tensor) -> Expansion:
    """Return the expansion left by the layer after it; a new one where it is to be differentiated itself."""
    if ctx.kept.expansion is not None and not torch.is_grad_enabled():
        return ctx.kept.expansion
    return ctx.algebra.expansion(ctx.rule, value, slots)


def _is_batched(bars: Sequence[Tensor | None]) -> bool:
    """Whether autograd differentiates for a batch of cotangents at once (`is_grads_batched`)."""
    return any(bar is not None and _functorch.is_legacy_batchedtensor(bar) for bar in bars)


def _constants(rule: Any) -> Constants:
    """Return the tensors that a rule closes over, with their versions: they are used again on the way back."""
    if isinstance(rule, FunctionType) and rule.__closure__ is None:
        return ()
    found: list[tuple[Tensor, int]] = []
    waiting, seen = [rule], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:  # functions may refer to themselves
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            found.append((one, one._version))
        elif isinstance(one, list | tuple):
            waiting += one
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, FunctionType):
            waiting += [cell.cell_contents for cell in one.__closure__ or () if cell != _EMPTY]
    return found


_EMPTY = CellType()
"""A variable that a function closes over and that has no value yet."""


def _check_unchanged(constants: Constants) -> None:
    if any(tensor._version != version for tensor, version in constants):
        raise RuntimeError(
            "Expected the tensors of a function of a jet as they were, got one that was changed in place between the "
            "forward and the backward pass."
        )


class _Layer(torch.autograd.Function):
    """A linear layer of a function of a jet, which keeps the argument of the function."""

    @staticmethod
    def forward(
        ctx: Any,
        algebra: Algebra,
        rule: Rule,
        kept: Kept,
        argument_value: Tensor,
        argument_slots: Tensor,
        value: Tensor,
        slots: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Any:
        ctx.algebra, ctx.rule, ctx.kept = algebra, rule, kept
        ctx.formats = value.dtype, weight.dtype
        ctx.save_for_backward(argument_value, argument_slots, weight)
        ctx.set_materialize_grads(False)
        return linear(value, weight, bias), linear(slots, weight)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        argument_value, argument_slots, weight = ctx.saved_tensors
        needed, (value_format, weight_format) = ctx.needs_input_grad, ctx.formats
        _check_unchanged(ctx.kept.constants)
        grad_weight = None
        if needed[7] and any(bar is not None for bar in bars):
            expansion = _expanded(ctx, argument_value, argument_slots)
            pairs = zip(bars, expansion.image(), strict=True)
            parts = [
                _rows(bar).mT @ _rows(x).to(bar.dtype).conj() for bar, x in pairs if bar is not None and x is not None
            ]
            grad_weight = (parts[0] if len(parts) == 1 else parts[0] + parts[1]).to(weight_format)
            if torch.is_grad_enabled():
                expansion.release()
            else:
                ctx.kept.expansion = expansion
        grad_bias = _rows(bars[0]).sum(0).to(weight_format) if needed[8] and bars[0] is not None else None
        back = weight.conj()
        grads = [
            None if bar is None or not need else (bar @ back.to(bar.dtype)).to(value_format)  # autocast changes formats
            for bar, need in zip(bars, needed[5:7], strict=True)
        ]
        return None, None, None, None, None, *grads, grad_weight, grad_bias


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _fitted(bar: Tensor | None, slots: Tensor) -> Tensor:
    """Return a cotangent with as many slots as the argument has, summed where they were broadcast."""
    if bar is None:
        return torch.zeros_like(slots)
    if bar.shape == slots.shape:
        return bar
    missing = slots.shape[0] - bar.shape[0]
    if missing > 0:
        bar = torch.cat([bar, bar.new_zeros((missing, *bar.shape[1:]))])
    return bar[: slots.shape[0]].sum_to_size(slots.shape)
