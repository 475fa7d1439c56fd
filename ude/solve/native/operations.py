"""What the generated code knows: one expression for each elementwise operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten

Expression = Callable[..., str]


def _call(name: str) -> Expression:
    return lambda *operands: f"{name}({', '.join(operands)})"


def _infix(sign: str) -> Expression:
    return lambda a, b: f"({a} {sign} {b})"


FUNCTIONS = (
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "erf", "erfc"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    *("floor", "ceil", "trunc", "round"),
)
"""Functions of one number of the C library."""

ARITHMETIC: dict[Any, Expression] = {
    aten.neg.default: lambda a: f"(-{a})",
    aten.abs.default: _call("absolute"),
    aten.sign.default: _call("sign"),
    aten.sgn.default: _call("sign"),
    aten.reciprocal.default: _call("inverse"),
    aten.relu.default: _call("relu"),
    aten.sigmoid.default: _call("sigmoid"),
    aten.rsqrt.default: _call("rsqrt"),
    aten.mul.Tensor: _infix("*"),
    aten.mul.Scalar: _infix("*"),
    aten.div.Tensor: _infix("/"),
    aten.div.Scalar: _infix("/"),
    aten.maximum.default: _call("maximum"),
    aten.minimum.default: _call("minimum"),
    aten.copysign.Tensor: _call("copysign"),
    aten.pow.Tensor_Tensor: _call("power"),
    aten.atan2.default: _call("arctan2"),
    **{getattr(aten, name).default: _call(f"{name}_") for name in FUNCTIONS},
}
"""Operands have the type of the result."""

COMPARISONS: dict[Any, Expression] = {
    getattr(getattr(aten, name), overload): _call(name)
    for name in ("lt", "le", "gt", "ge", "eq", "ne")
    for overload in ("Tensor", "Scalar")
}
"""Operands are brought to a common type; the result is a truth value."""

LOGIC: dict[Any, Expression] = {
    aten.bitwise_and.Tensor: _infix("&"),
    aten.bitwise_or.Tensor: _infix("|"),
    aten.bitwise_xor.Tensor: _infix("^"),
    aten.bitwise_not.default: lambda a: f"(~{a})",
    aten.logical_and.default: _infix("&"),
    aten.logical_or.default: _infix("|"),
    aten.logical_xor.default: _infix("^"),
    aten.logical_not.default: lambda a: f"(~{a})",
    aten.mul.Tensor: _infix("&"),
    aten.add.Tensor: _infix("|"),
    aten.maximum.default: _infix("|"),
    aten.minimum.default: _infix("&"),
}
"""Operands and result are truth values."""

VIEWS = frozenset(
    {
        aten.view.default,
        aten._unsafe_view.default,
        aten.reshape.default,
        aten.permute.default,
        aten.transpose.int,
        aten.t.default,
        aten.unsqueeze.default,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.expand.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.alias.default,
        aten.detach.default,
        aten.diagonal.default,
        aten.unfold.default,
        aten.view_as.default,
        aten.narrow.default,
    }
)
"""Operations that only look at the same elements in another order."""

COPIES = frozenset({aten.clone.default, aten.contiguous.default, aten.lift_fresh_copy.default, aten.detach_.default})
"""Operations that are nothing here."""

MANY_VIEWS = frozenset({aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int})
"""Operations that return several views."""

REDUCTIONS: dict[Any, tuple[str, float]] = {
    aten.sum.dim_IntList: ("({} + {})", 0.0),
    aten.sum.default: ("({} + {})", 0.0),
    aten.mean.dim: ("({} + {})", 0.0),
    aten.mean.default: ("({} + {})", 0.0),
    aten.prod.default: ("({} * {})", 1.0),
    aten.prod.dim_int: ("({} * {})", 1.0),
    aten.amax.default: ("maximum({}, {})", float("-inf")),
    aten.amin.default: ("minimum({}, {})", float("inf")),
    aten.any.default: ("({} | {})", 0.0),
    aten.any.dim: ("({} | {})", 0.0),
    aten.any.dims: ("({} | {})", 0.0),
    aten.all.default: ("({} & {})", 1.0),
    aten.all.dim: ("({} & {})", 1.0),
}
"""How two partial results combine, and the result of nothing."""

FILLED: dict[Any, float | None] = {
    aten.zeros.default: 0.0,
    aten.ones.default: 1.0,
    aten.zeros_like.default: 0.0,
    aten.ones_like.default: 1.0,
    aten.new_zeros.default: 0.0,
    aten.new_ones.default: 1.0,
    aten.empty.memory_format: 0.0,
    aten.empty_like.default: 0.0,
    aten.new_empty.default: 0.0,
    aten.empty_strided.default: 0.0,
    aten.new_empty_strided.default: 0.0,
    aten.scalar_tensor.default: None,
    aten.full.default: None,
    aten.full_like.default: None,
    aten.new_full.default: None,
}
"""Tensors of one number; None if it is an argument."""

RENAMED: dict[Any, Any] = {
    aten.squeeze_.dim: aten.squeeze.dim,
    aten.squeeze_.default: aten.squeeze.default,
    aten.unsqueeze_.default: aten.unsqueeze.default,
    aten.transpose_.default: aten.transpose.int,
    aten.t_.default: aten.t.default,
}
"""Operations of which only the result matters."""
