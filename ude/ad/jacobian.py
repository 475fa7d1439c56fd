"""The dense Jacobian, from the products that it takes fewer of."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from ude._checks import UdeWarning, floating
from ude.ad.counting import record


class Mode(Enum):
    """Order in which the factors of the chain rule are multiplied."""

    FORWARD = "forward"
    """From the inputs on: one product per column of the Jacobian, memory independent of the depth of `f`."""
    REVERSE = "reverse"
    """From the outputs back: one product per row of the Jacobian, memory proportional to the depth of `f`."""


def jacobian(
    f: Callable[[Tensor], Tensor], x: Tensor, *, mode: Mode | None = None, chunk_size: int | None = None
) -> Tensor:
    r"""Dense Jacobian $\partial f_i / \partial x_j$, by whichever mode takes fewer products.

    With $n$ inputs and $m$ outputs, forward mode takes $n$ products and reverse mode $m$. Reverse mode evaluates `f`
    once, forward mode once per chunk. Left to choose, `jacobian` evaluates and records `f` once to learn $m$: reverse
    mode goes on from there, forward mode drops the recording and costs its own evaluations on top. Pass `Mode.FORWARD`
    to save that evaluation and its memory; with $n = 1$ this is done in any case.

    Args:
        f: Function of one tensor with one tensor as its value, both real; in forward mode, without random numbers.
        x: Where to differentiate.
        mode: Mode to use; left out, forward if $n \le m$ and reverse otherwise.
        chunk_size: Products taken at the same time, by `vmap`; memory is proportional to it. Left out, all of them.
            With 1, `vmap` is not used.

    Returns:
        Tensor of shape `(*f(x).shape, *x.shape)`.

    Raises:
        ValueError: If `x` or `f(x)` is not one real floating-point tensor, an option is out of range, or `f` draws
            random numbers inside `vmap`.
        NotImplementedError: If an operation in `f` has no forward mode; use `Mode.REVERSE`.

    Warns:
        UdeWarning: If `vmap` fails on `f`; the products are then taken one at a time.

    Example:
        >>> jacobian(lambda x: x**2, torch.tensor([1.0, 2.0]))
        tensor([[2., 0.],
                [0., 4.]])
    """
    _check_real("x", x)
    if mode is not None and not isinstance(mode, Mode):
        raise ValueError(f"`mode` must be Mode.FORWARD, Mode.REVERSE or None (by shape), got {mode!r}.")
    if chunk_size is not None and (type(chunk_size) is not int or chunk_size < 1):
        raise ValueError(f"`chunk_size` must be a positive integer or None (all products at once), got {chunk_size!r}.")

    def real(x: Tensor) -> Tensor:
        record(evaluations=1)
        return _check_real("f(x)", f(x))

    if (mode is None and x.numel() == 1) or (mode is Mode.FORWARD and x.numel() > 0):
        return _by_columns(real, x, chunk_size)
    value, pullback = torch.func.vjp(real, x)[:2]
    if not value.numel() or not x.numel():
        return value.new_zeros((*value.shape, *x.shape))
    if mode is Mode.REVERSE or value.numel() < x.numel():
        return _by_rows(pullback, value, x, chunk_size)
    del value, pullback  # frees what was recorded
    return _by_columns(real, x, chunk_size)


def _by_columns(f: Callable[[Tensor], Tensor], x: Tensor, chunk_size: int | None) -> Tensor:
    try:
        columns = _products(lambda v: torch.func.jvp(f, (x,), (v.reshape(x.shape),))[1], x, chunk_size)
    except NotImplementedError as error:
        raise NotImplementedError(
            f"An operation in `f` has no forward mode: {_first_line(error)} Pass `mode=Mode.REVERSE`."
        ) from error
    record(forward=x.numel())
    return columns.movedim(0, -1).reshape((*columns.shape[1:], *x.shape))


def _by_rows(pullback: Callable[[Tensor], tuple[Tensor]], value: Tensor, x: Tensor, chunk_size: int | None) -> Tensor:
    rows = _products(lambda w: pullback(w.reshape(value.shape))[0], value, chunk_size)
    record(reverse=value.numel())
    return rows.reshape((*value.shape, *x.shape))


def _products(product: Callable[[Tensor], Tensor], space: Tensor, chunk_size: int | None) -> Tensor:
    """Stack `product(e)` over the unit vectors e of the space that the tensor `space` lies in."""
    count = space.numel()
    size = chunk_size or count
    reason = None
    if size > 1:
        try:
            return torch.cat([vmap(product)(_unit_vectors(space, i, size)) for i in range(0, count, size)])
        except RuntimeError as error:
            if "randomness" in str(error):
                raise ValueError(
                    "`f` draws random numbers, so that every evaluation is of another function. Draw them before, "
                    "outside `f`, or pass `mode=Mode.REVERSE`, which evaluates `f` once."
                ) from error
            reason = _first_line(error)
    stacked = torch.cat([product(_unit_vectors(space, i, 1)[0])[None] for i in range(count)])
    if reason is not None:
        warnings.warn(
            f"The {count} products were taken one at a time, because `vmap` failed: {reason} "
            "Pass `chunk_size=1` if that is what you want.",
            UdeWarning,
            stacklevel=4,
        )
    return stacked


def _unit_vectors(space: Tensor, start: int, size: int) -> Tensor:
    """Rows `start` to `start + size` of the identity, as far as there are rows."""
    rows = min(size, space.numel() - start)
    vectors = torch.zeros(rows, space.numel(), dtype=space.dtype, device=space.device)
    vectors.diagonal(start).fill_(1)
    return vectors


def _check_real(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(
            f"`{name}` must be one tensor, got {type(value).__name__}. Concatenate the parts into one, or use `jvp` or "
            "`vjp`, which take pytrees."
        )
    if value.is_complex():
        raise ValueError(
            f"`{name}` must be real, got {value.dtype}. Work with real and imaginary parts: `torch.view_as_real`."
        )
    return floating(name, value)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
