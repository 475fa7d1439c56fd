"""Functions that are linear in one tensor: rearrangements, sums, means, Fourier transforms, number formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from ude.ad.rules.kinds import as_operand, is_lifted, joined, kind_of, rearranged, value_of
from ude.ad.rules.table import functions_named, register, register_names

_SUMS = "sum mean cumsum trace"
_SHAPES = """
    reshape flatten unflatten ravel unsqueeze transpose swapaxes swapdims permute movedim moveaxis expand
    broadcast_to repeat repeat_interleave tile flip fliplr flipud roll rot90 t unfold view_as_real
    view_as_complex atleast_1d atleast_2d atleast_3d sum_to_size unsafe_chunk unsafe_split channel_shuffle
    pixel_shuffle pixel_unshuffle native_channel_shuffle
"""
_PARTS = """
    tril triu diag diagonal diag_embed diagflat select narrow index_select gather take take_along_dim split chunk
    tensor_split split_with_sizes unbind hsplit vsplit dsplit __getitem__ linalg_diagonal
"""
_NUMBERS = "real conj_physical resolve_conj resolve_neg neg negative positive clone contiguous deg2rad rad2deg __neg__"
_FOURIER = "fft ifft rfft irfft fft2 ifft2 rfft2 irfft2 fftn ifftn rfftn irfftn hfft ihfft fftshift ifftshift"
_IMAGES = """
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample
    fold im2col col2im zero_pad2d
"""

NAMES = " ".join([_SUMS, _SHAPES, _PARTS, _NUMBERS, _IMAGES]).split()


def view(input: Any, *shape: Any, dtype: torch.dtype | None = None) -> Any:
    """Return the numbers in another shape; slots need not lie in memory as the value does."""
    if dtype is not None or (len(shape) == 1 and isinstance(shape[0], torch.dtype)):
        raise TypeError("Expected a shape, got a number format: the bits of a jet cannot be read as other numbers.")
    return input.reshape(*shape)


def squeeze(input: Any, *args: Any, **kwargs: Any) -> Any:
    """Leave out axes of length one; a single number, such as a time, has none and stays as it is."""
    if input.ndim == 0:
        torch.zeros(()).squeeze(*args, **kwargs)  # raises where the axis is none
        return input
    return joined(lambda x: x.squeeze(*args, **kwargs), input)


def conj(input: Any) -> Any:
    """Return complex conjugates, in memory: torch's lazy conjugates cannot do all that slots need."""
    return joined(torch.conj_physical, input) if input.is_complex() else input


def imag(input: Any) -> Any:
    """Return imaginary parts."""
    return joined(lambda x: torch.view_as_real(x.resolve_conj())[..., 1], input)


def adjoint(input: Any) -> Any:
    """Return conjugate transposes."""
    return conj(input.transpose(-2, -1))


def nansum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """Sum what is a number."""
    return _without_nan(input).sum(dim=dim, keepdim=keepdim, dtype=dtype)


def nanmean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """Average what is a number."""
    count = (~input.value.isnan()).sum(dim=dim, keepdim=keepdim)
    return nansum(input, dim, keepdim, dtype=dtype) / count


def _without_nan(input: Any) -> Any:
    return torch.where(input.value.isnan(), torch.zeros_like(input.value), input)


def nan_to_num(input: Any, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    """Replace what is no finite number by constants."""
    value = input.value
    return torch.where(value.isfinite(), input, torch.nan_to_num(value, nan or 0.0, posinf, neginf).detach())


def diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """Return differences of neighbours."""
    parts = [part for part in (prepend, input, append) if part is not None]
    return joined(lambda *xs: torch.diff(torch.cat(xs, dim), n, dim), *parts)


def pad(input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    """Put numbers around a tensor."""
    if mode != "constant" or not value:
        return joined(lambda x: F.pad(x, pad, mode), input)
    frame = F.pad(torch.ones_like(input.value), pad).eq(0)
    padded = joined(lambda x: F.pad(x, pad), input)
    return torch.where(frame, as_operand(value, input), padded)


def masked_select(input: Any, mask: Tensor) -> Any:
    """Return the numbers where the mask holds, in a row."""
    shape = torch.broadcast_shapes(input.shape, mask.shape)
    index = mask.expand(shape).reshape(-1).nonzero().squeeze(1)
    return joined(lambda x: x.expand(shape).reshape(-1).index_select(0, index), input)


def trapezoid(y: Any, x: Any = None, *, dx: Any = None, dim: int = -1) -> Any:
    """Integrate by the trapezoidal rule."""
    left, right = y.narrow(dim, 0, y.shape[dim] - 1), y.narrow(dim, 1, y.shape[dim] - 1)
    mean = (left + right) * 0.5
    if x is None:
        return (mean if dx is None else mean * dx).sum(dim)
    widths = torch.diff(x, dim=-1 if x.ndim == 1 else dim)
    if x.ndim == 1:
        widths = widths.reshape(-1, *(1,) * (y.ndim - 1 - dim % y.ndim))
    return (mean * widths).sum(dim)


# Several tensors side by side


def together(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the rule of a function of a sequence of tensors, linear in all of them together."""

    def handler(tensors: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        return joined(lambda *xs: function(xs, *args, **kwargs), *tensors)

    return handler


def several(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the rule of a function of tensors one after the other, linear in all of them together."""

    def handler(*tensors: Any, **kwargs: Any) -> Any:
        chosen = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors
        return joined(lambda *xs: function(*xs, **kwargs), *chosen)

    return handler


def each(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the rule of a function that treats every one of its tensors by itself."""

    def handler(*tensors: Any) -> Any:
        chosen = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors
        return tuple(function(x) for x in chosen)

    return handler


def broadcast_tensors(*tensors: Any) -> Any:
    """Expand to a common shape."""
    chosen = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors
    shape = torch.broadcast_shapes(*(x.shape for x in chosen))
    return tuple(x.expand(shape) for x in chosen)


def column_stack(tensors: Sequence[Any]) -> Any:
    """Put vectors side by side as columns."""
    return torch.cat([x.reshape(-1, 1) if x.ndim < 2 else x for x in tensors], 1)


def meshgrid(*tensors: Any, indexing: str | None = None) -> Any:
    """Expand vectors to the grid that they span."""
    chosen = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors
    shape = [x.numel() for x in chosen]
    grids = [x.reshape([-1 if i == j else 1 for j in range(len(chosen))]).expand(shape) for i, x in enumerate(chosen)]
    return tuple(x.transpose(0, 1) for x in grids) if indexing == "xy" and len(grids) > 1 else tuple(grids)


def full(size: Any, fill_value: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    """Return one number everywhere."""
    return fill_value.expand(tuple(size)) if dtype is None else fill_value.to(dtype).expand(tuple(size))


# Number formats and devices


def to(input: Any, *args: Any, **kwargs: Any) -> Any:
    """Change number format or device; to whole numbers only the value goes."""
    if not is_lifted(input):
        (target,) = (x for x in (*args, *kwargs.values()) if is_lifted(x))
        return input.to(target.value)
    args, kwargs = pytree.tree_map(value_of, (args, kwargs), is_leaf=is_lifted)
    kwargs.pop("memory_format", None)
    value = input.value.to(*args, **kwargs)
    if not (value.is_floating_point() or value.is_complex()):
        return value
    if value is input.value:
        return input
    return joined(lambda x: x.to(device=value.device, dtype=value.dtype), input)


def type_(input: Any, dtype: Any = None, non_blocking: bool = False, **_: Any) -> Any:
    """Change the number format, or name it."""
    return input.value.type() if dtype is None else to(input, input.value.type(dtype).dtype)


def type_as(input: Any, other: Any) -> Any:
    """Change the number format to that of another tensor."""
    return to(input, other.dtype)


def cast(dtype: torch.dtype) -> Callable[..., Any]:
    """Make the rule of a method such as `double`."""
    return lambda x, memory_format=None: to(x, dtype)


def moved(name: str) -> Callable[..., Any]:
    """Make the rule of a method such as `cpu`."""
    return lambda x, *args, **kwargs: joined(lambda u: getattr(u, name)(*args, **kwargs), x)


def pooled(count: int) -> Callable[..., Any]:
    """Make the rule of a maximum over windows: the numbers at the places where the maxima are."""
    pool = getattr(F, f"max_pool{count}d")

    def handler(input: Any, *args: Any, **kwargs: Any) -> Any:
        with_indices = kwargs.pop("return_indices", False)
        _, index = pool(input.value, *args, **kwargs, return_indices=True)
        result = _at_places(input, index, count)
        return (result, index) if with_indices else result

    return handler


def adaptively_pooled(count: int) -> Callable[..., Any]:
    """Make the rule of a maximum over windows whose number is given."""
    pool = getattr(F, f"adaptive_max_pool{count}d")

    def handler(input: Any, output_size: Any, return_indices: bool = False) -> Any:
        _, index = pool(input.value, output_size, return_indices=True)
        result = _at_places(input, index, count)
        return (result, index) if return_indices else result

    return handler


def _at_places(x: Any, index: Tensor, count: int) -> Any:
    """Return numbers by their places among the last `count` axes."""
    return x.flatten(-count).gather(-1, index.flatten(-count)).reshape(index.shape)


def install() -> None:
    """Enter the rules of this file."""
    for name in NAMES:
        for function in functions_named(name):
            register(function, rearranged(function))
    for name in _FOURIER.split():
        for function in functions_named(name) | functions_named(f"fft_{name}"):
            register(function, rearranged(function))
    for handler in (
        conj,
        imag,
        adjoint,
        squeeze,
        view,
        nansum,
        nanmean,
        nan_to_num,
        diff,
        pad,
        masked_select,
        trapezoid,
        to,
        type_as,
        full,
    ):
        register_names(handler, handler.__name__)
    register_names(lambda x, pad_, value=0: pad(x, pad_, "constant", value), "constant_pad_nd")
    register_names(trapezoid, "trapz")
    register_names(lambda x, other: x.expand(other.shape), "expand_as")
    register_names(lambda x, other: x.reshape(other.shape), "view_as", "reshape_as")
    register_names(type_, "type")
    for name, dtype in {
        "double": torch.float64,
        "float": torch.float32,
        "half": torch.float16,
        "bfloat16": torch.bfloat16,
        "cdouble": torch.complex128,
        "cfloat": torch.complex64,
    }.items():
        register(getattr(Tensor, name), cast(dtype))
    for name in ("cpu", "cuda"):
        register(getattr(Tensor, name), moved(name))
    for name in ("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "row_stack"):
        for function in functions_named(name):
            register(function, together(function))
    for function in (torch.block_diag, torch.functional.block_diag):
        register(function, several(function))
    for function in (torch.atleast_1d, torch.atleast_2d, torch.atleast_3d):
        register(function, lambda *xs, f=function: _atleast(f, xs))
    register(torch.broadcast_tensors, broadcast_tensors)
    register(torch.column_stack, column_stack)
    register(torch.meshgrid, meshgrid)
    for count in (1, 2, 3):
        register_names(pooled(count), f"max_pool{count}d", f"_max_pool{count}d")
        register_names(_with_indices(pooled(count)), f"max_pool{count}d_with_indices")
        register_names(adaptively_pooled(count), f"adaptive_max_pool{count}d")
        register_names(_with_indices(adaptively_pooled(count)), f"adaptive_max_pool{count}d_with_indices")


def _with_indices(handler: Callable[..., Any]) -> Callable[..., Any]:
    def both(*args: Any, **kwargs: Any) -> Any:
        return handler(*args, **{**kwargs, "return_indices": True})

    return both


def _atleast(function: Callable[..., Any], tensors: Sequence[Any]) -> Any:
    chosen = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors
    results = [joined(function, x) if kind_of(x) else function(x) for x in chosen]
    return results[0] if len(tensors) == 1 and not isinstance(tensors[0], list | tuple) else tuple(results)
