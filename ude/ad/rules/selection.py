"""Functions that choose among numbers by their values, and that put numbers in places."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ude.ad.rules.kinds import as_operand, is_lifted, joined, value_of
from ude.ad.rules.piecewise import clamp as clamp_to_numbers
from ude.ad.rules.table import register, register_names


def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """Return a where the condition holds, else b."""
    mask = value_of(condition)
    if input is None or other is None:
        return torch.where(mask)
    like = input if is_lifted(input) else other
    if not is_lifted(like):
        return torch.where(mask, input, other)
    a, b = as_operand(input, like), as_operand(other, like)
    return joined(lambda x, y: torch.where(mask, x, y), a, b)


def masked_fill(input: Any, mask: Tensor, value: Any) -> Any:
    """Return the tensor with a number where the mask holds."""
    return where(mask, value, input)


def maximum(input: Any, other: Any) -> Any:
    """Return the larger of two; where they are equal, as autograd does, half of each."""
    x, y = value_of(input), value_of(other)
    return where(x > y, input, where(x < y, other, (input + other) * 0.5))


def minimum(input: Any, other: Any) -> Any:
    """Return the smaller of two; where they are equal, half of each."""
    x, y = value_of(input), value_of(other)
    return where(x < y, input, where(x > y, other, (input + other) * 0.5))


def fmax(input: Any, other: Any) -> Any:
    """Return the larger of two, or the one that is a number."""
    x, y = value_of(input), value_of(other)
    return where((x >= y) | y.isnan(), input, other)


def fmin(input: Any, other: Any) -> Any:
    """Return the smaller of two, or the one that is a number."""
    x, y = value_of(input), value_of(other)
    return where((x <= y) | y.isnan(), input, other)


def clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """Keep within bounds, numbers or tensors."""
    if is_lifted(input) and not any(is_lifted(x) or isinstance(x, Tensor) for x in (min, max)):
        return input.elementwise(lambda u: clamp_to_numbers(u, min, max))
    result = input
    if min is not None:
        result = where(value_of(result) < value_of(min), min, result)
    if max is not None:
        result = where(value_of(result) > value_of(max), max, result)
    return result


def clamp_min(input: Any, min: Any) -> Any:
    """Keep above a bound."""
    return clamp(input, min)


def clamp_max(input: Any, max: Any) -> Any:
    """Keep below a bound."""
    return clamp(input, None, max)


# The extreme of several, by its place


def at(x: Any, index: Tensor, dim: int | None, keepdim: bool = True) -> Any:
    """Return the numbers at these places along an axis; `index` keeps the axis."""
    if dim is None:
        return joined(lambda u: u.reshape(-1)[index], x)
    if x.ndim == 0:
        return x
    return joined(lambda u: u.gather(dim, index) if keepdim else u.gather(dim, index).squeeze(dim), x)


def extreme(function: Callable[..., Any], pair: Callable[..., Any], total: Callable[..., Any]) -> Callable[..., Any]:
    """Make the rule of `max` or `min`: of two tensors, along an axis, or of everything."""

    def handler(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
        second = other if other is not None else dim
        if is_lifted(second) or isinstance(second, Tensor):
            return pair(input, second)
        if dim is None:
            return total(input)
        found = function(input.value, dim, keepdim=True)
        return _named(found, at(input, found.indices, dim, keepdim), _squeezed(found.indices, dim, keepdim, input))

    return handler


def extremes(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """Make the rule of `amax` or `amin`: the mean over all places where the extreme is, as autograd does."""

    def handler(input: Any, dim: Any = (), keepdim: bool = False) -> Any:
        mask = (input.value == function(input.value, dim, keepdim=True)).detach()
        axes = tuple(range(input.ndim)) if dim in ((), None, []) else dim
        zero = torch.zeros((), dtype=input.dtype, device=input.device)
        count = mask.sum(dim=axes, keepdim=keepdim)
        return joined(lambda x: torch.where(mask, x, zero).sum(dim=axes, keepdim=keepdim) / count, input)

    return handler


amax, amin = extremes(torch.amax), extremes(torch.amin)


def aminmax(input: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    """Return both extremes."""
    axes = () if dim is None else dim
    return torch.return_types.aminmax((amin(input, axes, keepdim), amax(input, axes, keepdim)))


def placed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the rule of a function that returns numbers and their places along an axis."""

    def handler(input: Any, *args: Any, **kwargs: Any) -> Any:
        found = function(input.value, *args, **kwargs)
        return _named(found, at(input, found.indices, _axis(function, args, kwargs)), found.indices)

    return handler


def _axis(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    """Return the axis among the arguments of `topk(k, dim)` and `cummax(dim)`."""
    place = 1 if function is torch.topk else 0
    return kwargs["dim"] if "dim" in kwargs else (args[place] if len(args) > place else -1)


def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool | None = False, **_: Any) -> Any:
    """Return the numbers in order, and their places."""
    found = torch.sort(input.value, dim=dim, descending=descending, stable=stable)
    return _named(found, at(input, found.indices, dim), found.indices)


def reduced(function: Callable[..., Any], position: int) -> Callable[..., Any]:
    """Make the rule of `median`, `kthvalue` or `mode`: one number along an axis, and its place."""

    def handler(input: Any, *args: Any, dim: int | None = None, keepdim: bool = False) -> Any:
        rest = list(args)
        if dim is None and len(rest) > position:
            dim, rest = rest[position], rest[:position] + rest[position + 1 :]
        if len(rest) > position:
            keepdim, rest = rest[position], rest[:position]
        if dim is None and function in (torch.median, torch.nanmedian):
            return at(input, function(input.value.reshape(-1), 0).indices, None)
        axis = -1 if dim is None else dim
        found = function(input.value, *rest, dim=axis, keepdim=True)
        return _named(found, at(input, found.indices, axis, keepdim), _squeezed(found.indices, axis, keepdim, input))

    return handler


def quantile(
    input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Any:
    """Return quantiles by linear interpolation between neighbours in order."""
    if interpolation != "linear":
        raise NotImplementedError(f"Expected interpolation='linear', got {interpolation!r}.")
    x = input.reshape(-1) if dim is None else input.movedim(dim, -1)
    ordered, _ = sort(x)
    levels = torch.as_tensor(q, dtype=input.dtype, device=input.device)
    rank = levels.reshape(-1) * (x.shape[-1] - 1)
    low, high = rank.floor().long(), rank.ceil().long()
    result = torch.lerp(ordered[..., low], ordered[..., high], rank - low).movedim(-1, 0)
    if keepdim:
        result = (
            result.reshape(-1, *(1,) * input.ndim)
            if dim is None
            else result.unsqueeze(1).movedim(1, dim % input.ndim + 1)
        )
    return result if levels.ndim else result.squeeze(0)


def _named(found: Any, values: Any, indices: Tensor) -> Any:
    return type(found)((values, indices))


def _squeezed(indices: Tensor, dim: int, keepdim: bool, x: Any) -> Tensor:
    return indices if keepdim or x.ndim == 0 else indices.squeeze(dim)


# Activations with more than one number


def prelu(input: Any, weight: Any) -> Any:
    """Return x where it is positive, else w x with a weight for each channel."""
    shape = [1] * input.ndim
    if weight.numel() != 1 and input.ndim:
        shape[1 if input.ndim > 1 else 0] = weight.numel()
    slope = weight.reshape(shape if input.ndim else ())
    return where(value_of(input) > 0, input, slope * input)


def rrelu(
    input: Any, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Any:
    """Return x where it is positive, else x times a slope, random in training."""
    value = input.value
    slope = torch.empty_like(value).uniform_(lower, upper) if training else torch.full_like(value, (lower + upper) / 2)
    return input * torch.where(value >= 0, torch.ones_like(value), slope).detach()


def glu(input: Any, dim: int = -1) -> Any:
    """Return the first half times the sigmoid of the second."""
    a, b = input.chunk(2, dim)
    return a * torch.sigmoid(b)


def dropped(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """Make the rule of a dropout: value and derivatives share one mask."""

    def handler(
        input: Any, p: float = 0.5, train: bool = True, inplace: bool = False, training: bool | None = None
    ) -> Any:
        active = train if training is None else training
        return input * function(torch.ones_like(input.value), p, active) if active else input

    return handler


def alpha_dropout(
    input: Any, p: float = 0.5, train: bool = False, inplace: bool = False, training: bool | None = None
) -> Any:
    """Drop numbers to the negative limit of `selu`, then restore mean and variance."""
    if not (train if training is None else training):
        return input
    limit = -1.7580993408473766
    kept = torch.bernoulli(torch.full_like(input.value, 1.0 - p))
    scale = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * limit**2))
    return (input * kept + limit * (1.0 - kept)) * scale - scale * p * limit


# Numbers put in places


def index_add(input: Any, dim: int, index: Tensor, source: Any, *, alpha: float = 1.0) -> Any:
    """Add slices at these places."""
    return joined(lambda x, s: x.index_add(dim, index, s, alpha=alpha), input, source)


def index_copy(input: Any, dim: int, index: Tensor, source: Any) -> Any:
    """Put slices at these places."""
    return joined(lambda x, s: x.index_copy(dim, index, s), input, source)


def index_fill(input: Any, dim: int, index: Tensor, value: Any) -> Any:
    """Put one number at these places."""
    mask = torch.zeros(input.shape, dtype=torch.bool, device=input.device).index_fill(dim, index, True)
    return where(mask, value, input)


def index_put(input: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """Put or add numbers at these places."""
    places = tuple(indices)
    return joined(lambda x, v: x.index_put(places, v, accumulate), input, as_operand(values, input))


def scatter(
    input: Any, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Any:
    """Put numbers at these places along an axis."""
    source = value if src is None else src
    like = input if is_lifted(input) else source
    source = as_operand(source, like)
    source = source.expand(index.shape) if source.ndim == 0 else source
    if reduce in (None, "add"):
        name = "scatter" if reduce is None else "scatter_add"
        return joined(lambda x, s: getattr(x, name)(dim, index, s), input, source)
    raise NotImplementedError(f"Expected reduce=None or 'add', got {reduce!r}, which has no rule for jets.")


def scatter_add(input: Any, dim: int, index: Tensor, src: Any) -> Any:
    """Add numbers at these places along an axis."""
    return scatter(input, dim, index, src, reduce="add")


def scatter_reduce(input: Any, dim: int, index: Tensor, src: Any, reduce: str, *, include_self: bool = True) -> Any:
    """Combine numbers at these places along an axis by sum or mean."""
    if reduce not in ("sum", "mean"):
        raise NotImplementedError(f"Expected reduce='sum' or 'mean', got {reduce!r}, which has no rule for jets.")
    return joined(lambda x, s: x.scatter_reduce(dim, index, s, reduce, include_self=include_self), input, src)


def masked_scatter(input: Any, mask: Tensor, source: Any) -> Any:
    """Put numbers one after the other where the mask holds."""
    shape = torch.broadcast_shapes(input.shape, mask.shape)
    places = mask.expand(shape).reshape(-1).nonzero().squeeze(1)

    def put(x: Tensor, s: Tensor) -> Tensor:
        flat = x.expand(shape).reshape(-1)
        return flat.index_copy(0, places, s.reshape(-1)[: len(places)]).reshape(shape)

    return joined(put, input, source)


def inserted(part: Callable[..., Tensor]) -> Callable[..., Any]:
    """Make the rule of a function that replaces a part of a tensor."""

    def handler(input: Any, src: Any, *args: Any, **kwargs: Any) -> Any:
        # Under vmap the gradient of torch's own functions is too large by the number of slots (torch 2.13).
        numbers = torch.arange(input.numel(), device=input.device).reshape(input.shape)
        places = part(numbers, *args, **kwargs).reshape(-1)
        return joined(lambda x, s: x.reshape(-1).index_copy(0, places, s.reshape(-1)).reshape(x.shape), input, src)

    return handler


def _slice(x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    return x[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)]


def embedding(
    input: Any,
    weight: Any,
    padding_idx: Any = None,
    max_norm: Any = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """Return rows of a table."""
    if max_norm is not None:
        raise TypeError("Expected `max_norm=None`: renormalising the table changes it in place.")
    return joined(lambda table: F.embedding(input, table), weight)


_DROPOUTS = ["dropout", "dropout1d", "dropout2d", "dropout3d"]


def install() -> None:
    """Enter the rules of this file."""
    register_names(where, "where")
    register(Tensor.where, lambda x, condition, other: where(condition, x, other))
    register_names(extreme(torch.max, maximum, amax), "max")
    register_names(extreme(torch.min, minimum, amin), "min")
    register_names(amax, "amax")
    register_names(amin, "amin")
    register_names(clamp, "clamp", "clip")
    register_names(clamp_min, "clamp_min")
    register_names(clamp_max, "clamp_max")
    for name in ("topk", "cummax", "cummin"):
        register_names(placed(getattr(torch, name)), name)
    register_names(lambda x, dim=0, **_: sort(x, dim)[0], "msort")
    for name, position in {"median": 0, "nanmedian": 0, "mode": 0, "kthvalue": 1}.items():
        register_names(reduced(getattr(torch, name), position), name)
    for name in _DROPOUTS:
        register_names(dropped(getattr(F, name)), name)
    register_names(dropped(F.dropout2d), "feature_dropout")
    for name, part in {"diagonal": torch.diagonal, "select": torch.select, "slice": _slice}.items():
        register_names(inserted(part), f"{name}_scatter")
    register_names(embedding, "embedding")
    register(torch.embedding, lambda weight, indices, *_, **__: embedding(indices, weight))
    for handler in (
        masked_fill, maximum, minimum, fmax, fmin, aminmax, sort, quantile, prelu, rrelu, glu, alpha_dropout, index_add,
        index_copy, index_fill, index_put, scatter, scatter_add, scatter_reduce, masked_scatter,
    ):  # fmt: skip
        register_names(handler, handler.__name__)
