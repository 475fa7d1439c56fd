"""Slots by degree, and what is done with them: in place where nobody looks on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from ude.ad.algebra.bilinear import LARGE, BlockProduct, Multiply
from ude.ad.recording import is_recorded

Blocks: TypeAlias = "list[Tensor | None]"
"""Slots by degree, from degree 0 on; None stands for zeros."""


def common_shape(shapes: Sequence[torch.Size]) -> torch.Size:
    """Return the shape that arrays of one number of axes broadcast to; equal ones, the usual case, at no cost."""
    first = shapes[0]
    for other in shapes[1:]:
        if other != first:
            first = torch.Size(b if a == 1 else a for a, b in zip(first, other, strict=True))
    return first


def value_of(blocks: Blocks) -> Tensor:
    """Return the value, which every jet has."""
    value = blocks[0]
    assert value is not None  # None stands for zeros in the other places only
    return value


def as_tensor(coefficient: Tensor | float | None, like: Tensor) -> Tensor:
    """Return a coefficient as a tensor."""
    return coefficient if isinstance(coefficient, Tensor) else torch.full_like(like, coefficient or 0.0)


def plus(x: Tensor | None, y: Tensor) -> Tensor:
    """Return a sum whose first part may be missing."""
    return y if x is None else x + y


def add_product(
    total: Tensor | None,
    plan: BlockProduct,
    x: Tensor,
    y: Tensor,
    product: Multiply | None = None,
    into: Tensor | None = None,
) -> Tensor:
    """Return `total` plus a product of blocks; the total is overwritten where nothing is recorded."""
    if product is not None or is_recorded():
        return plus(total, plan(x, y, product))
    shape = torch.Size((plan.size, *common_shape([x.shape[1:], y.shape[1:]])))
    fresh = total is None
    if total is None:
        total = into if into is not None and into.shape[1:] == shape[1:] else x.new_empty(shape)
    elif total.shape != shape:
        total = total.expand(common_shape([total.shape, shape])).clone()
    plan.write(total, x, y, fresh=fresh)
    return total


def inner(x: Tensor, y: Tensor) -> Tensor:
    """Return the sum of products over the slots; slot by slot where a temporary would be large."""
    if is_recorded() or max(x.numel(), y.numel()) < LARGE * x.shape[0]:
        return (x * y).sum(0)
    pairs = zip(x.unbind(0), y.unbind(0), strict=True)
    first, second = next(pairs)
    total = first * second
    for first, second in pairs:
        total.addcmul_(first, second)
    return total


def multiply_add(
    total: Tensor | None, coefficient: Tensor | float, block: Tensor, into: Tensor | None = None
) -> Tensor:
    """Return `total` plus a coefficient times a block, overwriting the total where nothing is recorded."""
    if not isinstance(coefficient, Tensor):
        return plus(total, block * coefficient)
    if total is None:
        return coefficient * block if into is None else torch.mul(coefficient, block, out=into)
    if not is_recorded() and total.shape[1:] == coefficient.shape:
        return total.addcmul_(coefficient, block)
    return torch.addcmul(total, coefficient, block)
