"""What an operator returns, and the checks that all of them make."""

from __future__ import annotations

import cmath
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ude.ad.algebra import Algebra
from ude.ad.algebra.cache import univariate
from ude.ad.jet import Jet, check_float
from ude.ad.recording import is_transformed


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorResult:
    r"""A function, its first derivatives and a differential operator of it, from one pass.

    With $x$ of shape `(*batch, D)` and $f(x)$ of shape `(*batch, *out)`:

    Args:
        value: $f(x)$, shape `(*batch, *out)`.
        operator: $L f(x)$, same shape; a tuple if several operators were asked for.
        gradient: $\partial f / \partial x$, shape `(*batch, *out, D)`; None where the pass does not carry all of it (an
            estimator, or directions that are not the coordinates).
        directional: First derivatives along the directions of the pass, $\sigma^T \nabla f$, shape
            `(*batch, *out, R)`; None for operators without directions.
        standard_error: Of the estimate of `operator`, same shape; None unless asked for.
    """

    value: Tensor
    operator: Tensor | tuple[Tensor, ...]
    gradient: Tensor | None = None
    directional: Tensor | None = None
    standard_error: Tensor | None = None


def check_points(f: Callable[[Tensor], Tensor], x: Tensor, *, check_rows: bool) -> None:
    """Raise unless x is a batch of finite points and, if asked for, f treats every row by itself."""
    check_float(x, "x")
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"Expected x of shape (*batch, D) with D >= 1, got {tuple(x.shape)}.")
    if is_transformed():  # values cannot be looked at there
        return
    # One sum tells most of the time; a sum may overflow where no entry does.
    if not cmath.isfinite(x.detach().sum().item()) and not bool(x.isfinite().all()):
        raise ValueError(f"Expected finite x, got {int((~x.isfinite()).sum())} entries that are infinite or NaN.")
    if check_rows:
        _check_rows(f, x)


def as_jet(result: Any, algebra: Algebra, x: Tensor) -> Jet:
    """Return what f returned as a jet; raise unless it is one tensor with a result for each row."""
    if not isinstance(result, Jet | Tensor | float | int):
        raise TypeError(f"Expected f to return one tensor, got {type(result).__name__}. Take one part of it.")
    jet = result if isinstance(result, Jet) else Jet(algebra, torch.as_tensor(result))
    batch = x.shape[:-1]
    if jet.shape[: len(batch)] != batch:
        raise ValueError(
            f"Expected f to act row by row, from {tuple(x.shape)} to ({', '.join(map(str, (*batch, '...')))}), got a "
            f"result of shape {tuple(jet.shape)}."
        )
    return jet


def check_chunk_size(chunk_size: int | None) -> int | None:
    """Return it, or raise unless it is an integer of at least 1 or None."""
    if chunk_size is None or (isinstance(chunk_size, int) and not isinstance(chunk_size, bool) and chunk_size >= 1):
        return chunk_size
    raise ValueError(f"Expected a chunk_size of at least 1, an integer, or None, got {chunk_size!r}.")


def _check_rows(f: Callable[[Tensor], Tensor], x: Tensor) -> None:
    rows = x.detach().reshape(-1, x.shape[-1])
    if len(rows) < 2:
        return
    with torch.no_grad():
        together = f(x.detach())
        as_jet(together, univariate(1), x)
        # Another order and other neighbours: a function of single rows notices neither.
        changed = torch.cat([rows[:1], rows[1:].flip(0) + 1.0]).reshape(x.shape)
        alone = f(changed)
    batch = x.ndim - 1
    first, again = (y.flatten(0, batch - 1)[0] if batch else y for y in (together, alone))
    if not torch.allclose(first, again, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise ValueError(
            "Expected f to act row by row, got a first row that changes with the others. Put batch normalisation into "
            "eval mode, and move sums over the batch outside of f."
        )
