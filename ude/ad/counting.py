"""Count the Jacobian products that a computation uses: the unit in which the cost of derivatives is stated."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch


@dataclass(slots=True)
class ProductCount:
    r"""How many first-order products were taken.

    Attributes:
        forward: Jacobian-vector products $J v$.
        reverse: Vector-Jacobian products $w^T J$.
        evaluations: Calls of a differentiated function, each with its derivative propagated or recorded along. A call
            for a batch of products counts once.
    """

    forward: int = 0
    reverse: int = 0
    evaluations: int = 0


_OPEN: ContextVar[tuple[ProductCount, ...]] = ContextVar("open product counts", default=())


@contextmanager
def count_products() -> Generator[ProductCount]:
    """Count the products taken by `grad`, `jvp`, `vjp`, `jacobian` and `hvp` inside the `with` block.

    A pullback counts where it is called, not where `vjp` made it. Blocks may be nested: what happens in the inner one
    counts in both. A product inside `vmap` counts once for the whole batch; what runs inside `torch.compile`, or in
    another thread, is not counted.

    Example:
        >>> import torch
        >>> from ude import ad
        >>> with ad.count_products() as count:
        ...     J = ad.jacobian(lambda x: x.sum(dim=0), torch.ones(3, 2))
        >>> count
        ProductCount(forward=0, reverse=2, evaluations=1)
    """
    count = ProductCount()
    token = _OPEN.set((*_OPEN.get(), count))
    try:
        yield count
    finally:
        _OPEN.reset(token)


def record(*, forward: int = 0, reverse: int = 0, evaluations: int = 0) -> None:
    """Add to every open count."""
    # Dynamo cannot trace a context variable; this test is a constant to it.
    if torch.compiler.is_compiling():
        return
    for count in _OPEN.get():
        count.forward += forward
        count.reverse += reverse
        count.evaluations += evaluations
