"""Functions of all numbers along some axes: products, norms, statistics, softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ude.ad.rules.arithmetic import absolute, logaddexp
from ude.ad.rules.kinds import is_lifted, pinned
from ude.ad.rules.selection import amax, amin, where
from ude.ad.rules.table import register, register_names


def prod(input: Any, dim: int | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """Multiply along an axis, by halves: no division, so zeros do no harm."""
    x: Any = input if dtype is None else input.to(dtype)
    if dim is None:
        return prod(x.reshape(-1), 0)
    if x.ndim == 0:
        return x
    while (length := x.shape[dim]) > 1:
        half = length // 2
        rest = x.narrow(dim, 2 * half, length - 2 * half)
        x = x.narrow(dim, 0, half) * x.narrow(dim, half, half)
        x = torch.cat([x, rest], dim) if length % 2 else x
    if x.shape[dim] == 0:
        return torch.prod(x.value, dim, keepdim)
    return x if keepdim else x.squeeze(dim)


def scan(x: Any, dim: int, operation: Callable[[Any, Any], Any]) -> Any:
    """Combine each number with all before it, in a number of steps that is the logarithm of the length."""
    if x.ndim == 0:
        return x
    length, step = x.shape[dim], 1
    while step < length:
        rest = operation(x.narrow(dim, step, length - step), x.narrow(dim, 0, length - step))
        x = torch.cat([x.narrow(dim, 0, step), rest], dim)
        step *= 2
    return x


def cumprod(input: Any, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    """Multiply each number by all before it."""
    return scan(input if dtype is None else input.to(dtype), dim, lambda a, b: a * b)


def logcumsumexp(input: Any, dim: int) -> Any:
    """Return the logarithm of sums of exponentials up to each place."""
    return pinned(scan(input, dim, logaddexp), torch.logcumsumexp(input.value, dim))


def shifted(input: Any, dim: Any) -> tuple[Any, Tensor]:
    """Return numbers less their largest, which is a constant: it cancels wherever this is used."""
    if not input.value.numel():
        return input, torch.zeros_like(input.value)
    top = torch.amax(input.value, dim, keepdim=True).detach()
    top = torch.where(top.isfinite(), top, torch.zeros_like(top))
    return input - top, top


def logsumexp(input: Any, dim: Any, keepdim: bool = False) -> Any:
    """Return the logarithm of a sum of exponentials."""
    if not input.value.numel():  # the logarithm of an empty sum is infinite and does not change
        return input.sum(dim, keepdim) + torch.logsumexp(input.value, dim, keepdim)
    rest = shifted(input, dim)[0]
    return pinned(rest.exp().sum(dim, keepdim).log(), torch.logsumexp(input.value, dim, keepdim))


def softmax(input: Any, dim: int | None = None, *args: Any, dtype: torch.dtype | None = None, **_: Any) -> Any:
    """Return exponentials divided by their sum."""
    x, axis = _prepared(input, dim, args, dtype)
    powers = shifted(x, axis)[0].exp()
    return pinned(powers / powers.sum(axis, keepdim=True), torch.softmax(x.value, axis))


def log_softmax(input: Any, dim: int | None = None, *args: Any, dtype: torch.dtype | None = None, **_: Any) -> Any:
    """Return the logarithm of the softmax."""
    x, axis = _prepared(input, dim, args, dtype)
    rest = shifted(x, axis)[0]
    return pinned(rest - rest.exp().sum(axis, keepdim=True).log(), torch.log_softmax(x.value, axis))


def softmin(input: Any, dim: int | None = None, *args: Any, dtype: torch.dtype | None = None, **_: Any) -> Any:
    """Return the softmax of the opposite numbers."""
    return softmax(-input, dim, *args, dtype=dtype)


def _prepared(input: Any, dim: int | None, args: tuple[Any, ...], dtype: torch.dtype | None) -> tuple[Any, int]:
    chosen = next((x for x in args if isinstance(x, torch.dtype)), dtype)
    axis = (0 if input.ndim in (0, 1, 3) else 1) if dim is None else dim  # the axis that torch takes
    return (input if chosen is None else input.to(chosen)), axis


# Statistics


def var_mean(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> Any:
    """Return variance and mean."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    axes = tuple(range(input.ndim)) if dim is None else ((dim,) if isinstance(dim, int) else tuple(dim))
    count = math.prod(input.shape[axis] for axis in axes)
    less = correction if correction is not None else float(unbiased is not False)
    mean = input.mean(axes, keepdim=True) if axes else input
    deviation = input - mean
    square = deviation * deviation.conj() if input.is_complex() else deviation * deviation
    square = square.real if input.is_complex() else square
    divisor = max(count - less, 0.0)
    total = square.sum(axes, keepdim=keepdim) if axes else square
    variance = total / divisor if divisor else total * math.nan
    return variance, (mean if keepdim or not axes else mean.reshape(variance.shape))


def var(input: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the variance."""
    return var_mean(input, *args, **kwargs)[0]


def std(input: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the standard deviation."""
    return var(input, *args, **kwargs).sqrt()


def std_mean(input: Any, *args: Any, **kwargs: Any) -> Any:
    """Return standard deviation and mean."""
    variance, mean = var_mean(input, *args, **kwargs)
    return variance.sqrt(), mean


# Norms


def vector_norm(
    input: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Any:
    """Return the p-norm along axes. Where it is zero its derivatives are taken as zero, as autograd does."""
    x = input if dtype is None else input.to(dtype)
    axes = tuple(range(x.ndim)) if dim is None else dim
    value = torch.linalg.vector_norm(x.value, ord, dim, keepdim)
    if ord == 0:
        return value.detach()
    if ord in (math.inf, -math.inf):
        return (amax if ord > 0 else amin)(absolute(x), axes, keepdim)
    if ord == 1:
        return absolute(x).sum(axes, keepdim)
    size = absolute(x) if x.is_complex() or ord % 2 else x
    total = size.pow(ord).sum(axes, keepdim)
    flat = total.value == 0
    root = where(flat, 1.0, total)
    root = root.sqrt() if ord == 2 else root.pow(1.0 / ord)
    return pinned(where(flat, 0.0, root), value)


def matrix_norm(
    input: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Any:
    """Return a norm of matrices: of their numbers ("fro"), or the largest or smallest sum of a row or column."""
    x = input if dtype is None else input.to(dtype)
    if ord in ("fro", "f"):
        return vector_norm(x, 2, tuple(dim), keepdim)
    if ord not in (1, -1, math.inf, -math.inf):
        raise NotImplementedError(f"Expected ord 'fro', 1, -1, inf or -inf for matrices of jets, got {ord!r}.")
    rows, columns = (axis % x.ndim for axis in dim)
    along, across = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = absolute(x).sum(along, keepdim=True)
    result = (amax if ord > 0 else amin)(sums, across, True)
    return result if keepdim else result.squeeze(max(along, across)).squeeze(min(along, across))


def linalg_norm(
    input: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Any:
    """Return a norm of vectors or matrices."""
    pair = (isinstance(dim, tuple | list) and len(dim) == 2) or (dim is None and input.ndim == 2)
    if ord is None or not pair:
        return vector_norm(input, 2 if ord is None else ord, dim, keepdim, dtype=dtype)
    return matrix_norm(input, ord, (0, 1) if dim is None else dim, keepdim, dtype=dtype)


def norm(
    input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: torch.dtype | None = None, **_: Any
) -> Any:
    """Return the p-norm along axes."""
    if p == "nuc":
        raise NotImplementedError("Expected a p-norm, got the nuclear norm, which has no rule for jets.")
    return vector_norm(input, 2 if p in ("fro", None) else p, dim, keepdim, dtype=dtype)


def dist(input: Any, other: Any, p: float = 2) -> Any:
    """Return the p-norm of the difference."""
    return vector_norm(input - other, p)


def renormalized(input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, **_: Any) -> Any:
    """Return vectors divided by their norm."""
    return input / vector_norm(input, p, dim, True).clamp_min(eps)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """Return the cosine of the angle between vectors."""
    a, b = (x / vector_norm(x, 2, dim, True).clamp_min(eps) if is_lifted(x) else _unit(x, dim, eps) for x in (x1, x2))
    return (a * b).sum(dim)


def _unit(x: Tensor, dim: int, eps: float) -> Tensor:
    return x / torch.linalg.vector_norm(x, 2, dim, True).clamp_min(eps)


def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    """Return the norm of the difference of vectors, plus a small number each."""
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)


def cdist(x1: Any, x2: Any, p: float = 2.0, compute_mode: Any = None) -> Any:
    """Return the distances of all pairs of vectors."""
    return vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def pdist(input: Any, p: float = 2.0) -> Any:
    """Return the distances of all pairs of rows."""
    first, second = torch.triu_indices(len(input), len(input), 1, device=input.device).unbind(0)
    return vector_norm(input[first] - input[second], p, -1)


def cov(input: Any, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Any:
    """Return the covariance matrix of rows."""
    if fweights is not None or aweights is not None:
        raise NotImplementedError("Expected no weights for the covariance of jets.")
    x = input.reshape(1, -1) if input.ndim < 2 else input
    deviation = x - x.mean(1, keepdim=True)
    matrix = deviation @ deviation.mT.conj() / max(x.shape[1] - correction, 0)
    return matrix.squeeze() if input.ndim < 2 else matrix


def corrcoef(input: Any) -> Any:
    """Return the matrix of correlation coefficients of rows."""
    matrix = cov(input)
    if matrix.ndim == 0:
        return matrix / matrix
    scale = matrix.diagonal().real.sqrt() if matrix.is_complex() else matrix.diagonal().sqrt()
    return matrix / scale[:, None] / scale[None, :]


def install() -> None:
    """Enter the rules of this file."""
    register_names(softmax, "softmax", "special_softmax", "_softmax")
    register_names(log_softmax, "log_softmax", "special_log_softmax", "_log_softmax")
    register_names(logsumexp, "logsumexp", "special_logsumexp")
    register_names(vector_norm, "vector_norm", "linalg_vector_norm")
    register_names(matrix_norm, "matrix_norm", "linalg_matrix_norm")
    register_names(renormalized, "normalize")
    for function in (torch.norm, torch.functional.norm, Tensor.norm):
        register(function, norm)
    register(torch.linalg.norm, linalg_norm)
    for handler in (
        prod, cumprod, logcumsumexp, softmin, var, std, var_mean, std_mean, dist, cosine_similarity, pairwise_distance,
        cdist, pdist, cov, corrcoef,
    ):  # fmt: skip
        register_names(handler, handler.__name__)
