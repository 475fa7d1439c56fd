"""A function of one sample as a function of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude.ad.jet import Jet


def over_rows(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return f applied to every row of its arguments, tensors or jets in any nesting, by `torch.func.vmap`.

    Like `vmap`, but the jets of this kernel pass through, so that what it returns can be differentiated by them.

    Args:
        f: Function of one sample.

    Example:
        >>> over_rows(lambda x, k: k * x.sum())(torch.ones(2, 3), torch.tensor([1.0, 2.0]))
        tensor([3., 6.])
    """

    def batched(*arguments: Any) -> Any:
        leaves, spec = pytree.tree_flatten(arguments, is_leaf=lambda x: isinstance(x, Jet))
        batch = max(len(leaf) for leaf in leaves if isinstance(leaf, Tensor | Jet))
        algebras = [leaf.algebra if isinstance(leaf, Jet) else None for leaf in leaves]
        parts = [_parts(leaf, batch) for leaf in leaves]
        tensors = [part for pair in parts for part in pair if part is not None]
        axes = [axis for pair in parts for axis, part in enumerate(pair) if part is not None]
        shape: list[Any] = []

        def single(*flat: Tensor) -> tuple[Tensor, ...]:
            remaining = iter(flat)
            inputs = []
            for algebra, (_, slots) in zip(algebras, parts, strict=True):
                value = next(remaining)
                own = next(remaining) if slots is not None else None
                inputs.append(value if algebra is None else Jet(algebra, value, own))
            result = f(*pytree.tree_unflatten(inputs, spec))
            outputs, structure = pytree.tree_flatten(result, is_leaf=lambda x: isinstance(x, Jet))
            shape[:] = [structure, [x.algebra if isinstance(x, Jet) else None for x in outputs]]
            return tuple(part for x in outputs for part in ((x.value, x.dense()) if isinstance(x, Jet) else (x,)))

        # Slots come out with the batch in front of them.
        flat = iter(torch.func.vmap(single, in_dims=tuple(axes))(*tensors))
        structure, kinds = shape
        outputs = [
            next(flat) if algebra is None else Jet(algebra, next(flat), next(flat).movedim(0, 1)) for algebra in kinds
        ]
        return pytree.tree_unflatten(outputs, structure)

    return batched


def _parts(leaf: Any, batch: int) -> tuple[Tensor, Tensor | None]:
    """Return value and slots, whose batch is the axis 0 and 1."""
    if not isinstance(leaf, Jet):
        return leaf, None
    slots = leaf.slots
    return leaf.value, None if slots is None else slots.expand(slots.shape[0], batch, *slots.shape[2:])
