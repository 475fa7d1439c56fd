"""ATen operations, as decompositions spell them, where they are not called like functions of torch."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from ude.ad.rules import arithmetic, arrangement, selection
from ude.ad.rules.kinds import as_operand, joined, value_of
from ude.ad.rules.reduction import var, var_mean
from ude.ad.rules.table import register_aten


def slice_(input: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    """Return a part of one axis."""
    index = (slice(None),) * (dim % input.ndim) + (slice(start, _end(end), step),)
    return joined(lambda x: x[index], input)


def _end(end: int | None) -> int | None:
    return None if end is None or end >= 2**62 else end


def index(input: Any, indices: Any) -> Any:
    """Return numbers at these places."""
    places = tuple(slice(None) if i is None else i for i in indices)
    return joined(lambda x: x[places], input)


def to_copy(input: Any, *, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Any:
    """Change number format or device."""
    chosen = input.dtype if dtype is None else dtype
    return arrangement.to(input, input.device if device is None else device, chosen)


def clone(input: Any, **_: Any) -> Any:
    """Return the same."""
    return input


def squeeze(input: Any, dim: Any = None) -> Any:
    """Leave off axes of length 1."""
    return input.squeeze() if dim is None else input.squeeze(dim)


def expand(input: Any, size: Any, *, implicit: bool = False) -> Any:
    """Repeat along axes of length 1."""
    return input.expand(size)


def scalar_tensor(value: Any, **_: Any) -> Any:
    """Return a number as a tensor."""
    return value


def split(input: Any, sizes: Any, dim: int = 0) -> Any:
    """Return parts of one axis."""
    return input.split(sizes, dim)


def native_dropout(input: Any, p: float, train: bool | None) -> Any:
    """Drop numbers; value and derivatives share one mask."""
    mask = F.dropout(torch.ones_like(input.value), p, bool(train))
    return input * mask, mask != 0


def sum_(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """Sum over axes."""
    return joined(lambda x: torch.sum(x, dim=dim, keepdim=keepdim, dtype=dtype), input)


def variance(input: Any, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Any:
    """Return the variance."""
    return var(input, dim, keepdim=keepdim, correction=1 if correction is None else correction)


def variance_and_mean(input: Any, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Any:
    """Return variance and mean."""
    return var_mean(input, dim, keepdim=keepdim, correction=1 if correction is None else correction)


def softmax(function: Any) -> Any:
    """Make the rule of an operation whose last argument asks for more digits."""
    return lambda x, dim, half_to_float: function(x, dim)


def masked_fill(input: Any, mask: Any, value: Any) -> Any:
    """Return the tensor with a number where the mask holds."""
    return selection.where(mask, as_operand(value, input), input)


def embedding(weight: Any, indices: Any, *_: Any) -> Any:
    """Return rows of a table."""
    return selection.embedding(indices, weight)


def full_like_value(input: Any, *args: Any, **kwargs: Any) -> Any:
    """Return a constant of the shape of the value."""
    kwargs.pop("pin_memory", None)
    return torch.full_like(value_of(input), *args, **kwargs)


_RULES = {
    "slice": slice_, "index": index, "_to_copy": to_copy, "clone": clone, "alias": clone, "lift_fresh_copy": clone,
    "view": lambda x, size: x.reshape(size), "_unsafe_view": lambda x, size: x.reshape(size),
    "reshape": lambda x, size: x.reshape(size), "squeeze": squeeze, "expand": expand, "split": split,
    "split_with_sizes": split, "native_dropout": native_dropout, "sum": sum_, "var": variance,
    "var_mean": variance_and_mean,
    "_softmax": softmax(torch.softmax), "_log_softmax": softmax(torch.log_softmax), "masked_fill": masked_fill,
    "embedding": embedding, "full_like": full_like_value, "permute": lambda x, dims: x.permute(dims),
    "cat": lambda tensors, dim=0: torch.cat(tensors, dim), "stack": lambda tensors, dim=0: torch.stack(tensors, dim),
    "max": lambda x, *args: torch.max(x, *args), "min": lambda x, *args: torch.min(x, *args),
    "where": selection.where, "rsub": lambda a, b, alpha=1: arithmetic.sub(b, a * alpha),
    "flip": lambda x, d: x.flip(d),
    "repeat": lambda x, repeats: x.repeat(repeats), "dot": torch.dot, "scalar_tensor": scalar_tensor,
}  # fmt: skip


def install() -> None:
    """Enter the rules of this file."""
    for name, handler in _RULES.items():
        register_aten(name, handler)
