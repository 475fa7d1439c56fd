"""A vector field to first order around a point: value, Jacobian and rate of change in time."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ude._typing import FlatField
from ude.ad.algebra import Algebra
from ude.ad.algebra.cache import directions, univariate
from ude.ad.jet import Jet
from ude.ad.operators.result import as_jet
from ude.ad.recording import is_hooked, is_transformed

FEW = 8
"""Components up to which one reverse pass for each beats jets: 1.5 to 2 times as fast for fields written by hand, 0.8
to 1.3 times for networks. On the graph they lose, since their own derivative costs more than that of jets."""


@dataclass(frozen=True, slots=True)
class JacobianProduct:
    r"""The Jacobian $J = \partial f / \partial y$ as what it does to vectors of shape `(batch, n)`.

    Args:
        forward: $v \mapsto J v$, on the autograd graph.
        transposed: $w \mapsto J^T w$, likewise.
    """

    forward: Callable[[Tensor], Tensor]
    transposed: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, matrix: Tensor) -> JacobianProduct:
        """Return the products with a matrix `(batch, n, n)`."""
        return cls(
            forward=lambda v: (matrix @ v.unsqueeze(-1)).squeeze(-1),
            transposed=lambda w: (matrix.mT @ w.unsqueeze(-1)).squeeze(-1),
        )


class Linearisation(NamedTuple):
    r"""$f(t + \tau, y + \delta) \approx f + J \delta + f_t \tau$.

    Args:
        value: $f(t, y)$, shape `(batch, n)`.
        jacobian: $J_{ij} = \partial f_i / \partial y_j$, shape `(batch, n, n)`, or its products.
        rate: $f_t = \partial f / \partial t$, shape `(batch, n)`; None if not asked for.
    """

    value: Tensor
    jacobian: Tensor | JacobianProduct
    rate: Tensor | None


@runtime_checkable
class Linearisable(Protocol):
    """A vector field that knows its Jacobian."""

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the value."""
        ...

    def linearise(self, t: Tensor, y: Tensor, *, rate: bool) -> Linearisation:
        """Return value, Jacobian matrix and, if asked for, rate."""
        ...


def linearise(f: FlatField, t: Tensor, y: Tensor, *, rate: bool = True) -> Linearisation:
    r"""Return a vector field, its Jacobian and its rate of change in time, from one pass.

    The pass carries n + 1 directions: those of the state and that of time. Up to n = 8, and where no gradient of the
    result is wanted, n reverse passes side by side take its place, which are faster then. A field that knows its
    Jacobian (`Linearisable`) is asked for it instead.

    Args:
        f: Vector field that acts on every row by itself, called as `f(t, y)`.
        t: Times, shape `(batch,)`.
        y: States, real, shape `(batch, n)`.
        rate: Return $\partial f / \partial t$ as well; one direction less without.

    Returns:
        Value `(batch, n)`, Jacobian `(batch, n, n)` and rate `(batch, n)`, all on the autograd graph.

    Raises:
        ValueError: If the state is not real or has another shape, or the value has not the shape of the state.

    Example:
        >>> at = linearise(lambda t, y: y**2 * t[:, None], torch.tensor([2.0]), torch.tensor([[1.0, 3.0]]))
        >>> at.jacobian, at.rate
        (tensor([[[ 4.,  0.],
                 [ 0., 12.]]]), tensor([[1., 9.]]))
    """
    _check_state(y)
    if isinstance(f, Linearisable):
        return f.linearise(t, y, rate=rate)
    # The compiler may take a size for a symbol; this makes it a number.
    n = operator.index(y.shape[-1])
    seeds = torch.eye(n + 1, n + 1, dtype=y.dtype, device=y.device)
    if torch.compiler.is_compiling():
        return _traced(f, t, y, seeds[: n + rate], rate=rate)
    if n <= FEW and not (torch.is_grad_enabled() or is_transformed() or is_hooked()):
        backwards = _reversed(f, t, y, seeds[:n, :n], rate=rate)
        if backwards is not None:
            return backwards
    algebra = directions(n + rate, 1, collapsed=False)
    state = Jet(algebra, y, seeds[: n + rate, :n].unsqueeze(1))
    time = Jet(algebra, t, seeds[:, n:].to(t.dtype)) if rate else t
    result = _result(f(time, state), algebra, y)  # pyright: ignore[reportArgumentType]
    slopes = result.dense()
    return Linearisation(result.value, slopes[:n].movedim(0, -1), slopes[n] if rate else None)


def time_derivative(f: FlatField, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return $f(t, y)$ and $\partial f / \partial t$, each of shape `(batch, n)`, from one pass.

    Example:
        >>> time_derivative(lambda t, y: t[:, None] ** 2 * y, torch.tensor([3.0]), torch.ones(1, 1))
        (tensor([[9.]]), tensor([[6.]]))
    """
    if torch.compiler.is_compiling():
        return _traced_product(lambda t: f(t, y), (t,), (torch.ones_like(t),))
    algebra = univariate(1)
    time = Jet(algebra, t, torch.ones_like(t).unsqueeze(0))
    result = _result(f(time, y), algebra, y)  # pyright: ignore[reportArgumentType]
    return result.value, result.slot(1)


def jacobian_product(f: FlatField, t: Tensor, y: Tensor) -> JacobianProduct:
    r"""Return the products of a vector field's Jacobian at (t, y) with vectors; the matrix is never made.

    $J v$ takes one pass through `f` with one direction, $J^T w$ one pass and its reverse mode.

    Args:
        f: Vector field, as in `linearise`.
        t: Times, shape `(batch,)`.
        y: States, real, shape `(batch, n)`.

    Returns:
        The products, on the autograd graph.

    Example:
        >>> J = jacobian_product(lambda t, y: y.flip(-1) ** 2, torch.zeros(1), torch.tensor([[1.0, 3.0]]))
        >>> J.forward(torch.tensor([[1.0, 0.0]])), J.transposed(torch.tensor([[1.0, 0.0]]))
        (tensor([[0., 2.]]), tensor([[0., 6.]]))
    """
    _check_state(y)
    if isinstance(f, Linearisable):
        matrix = f.linearise(t, y, rate=False).jacobian
        return matrix if isinstance(matrix, JacobianProduct) else JacobianProduct.of(matrix)

    def forward(v: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return _traced_product(lambda y: f(t, y), (y,), (v,))[1]
        algebra = univariate(1)
        return _result(f(t, Jet(algebra, y, v.unsqueeze(0))), algebra, y).slot(1)  # pyright: ignore[reportArgumentType]

    def transposed(w: Tensor) -> Tensor:
        return torch.func.vjp(lambda y: f(t, y), y)[1](w)[0]

    return JacobianProduct(forward, transposed)


def _reversed(f: FlatField, t: Tensor, y: Tensor, seeds: Tensor, *, rate: bool) -> Linearisation | None:
    """Do the same, off the autograd graph, by n reverse passes side by side; None where they would miss something."""
    with torch.enable_grad():
        y, *times = (x.detach().requires_grad_() for x in ((y, t) if rate else (y,)))
        with _Gaps() as gaps:
            value = f(times[0] if rate else t, y)
        if gaps.found or not isinstance(value, Tensor) or value.shape != y.shape or not value.requires_grad:
            return None
        cotangents = seeds.unsqueeze(1).expand(-1, len(y), -1).to(value.dtype)
        rows = torch.autograd.grad(value, (y, *times), cotangents, is_grads_batched=True, allow_unused=True)
    # What the value does not depend on has no gradient at all.
    jacobian = torch.zeros_like(cotangents) if rows[0] is None else rows[0]
    slope = None if not rate else torch.zeros_like(y) if rows[1] is None else rows[1].movedim(0, 1)
    return Linearisation(value.detach(), jacobian.movedim(0, 1), slope)


class _Gaps(TorchFunctionMode):
    """Finds what leaves autograd's record without a word: `torch.no_grad`, and gradients without a graph."""

    found = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch._C._set_grad_enabled or func is torch.autograd.grad:
            self.found = self.found or not (kwargs or {}).get("create_graph", False)
        return func(*args, **kwargs) if kwargs else func(*args)


def _traced(f: FlatField, t: Tensor, y: Tensor, seeds: Tensor, *, rate: bool) -> Linearisation:
    """Do the same by the transforms of PyTorch, which the compiler traces sooner than jets, and with every function.

    Their overhead, several times that of jets, is compiled away.
    """
    n = operator.index(y.shape[-1])

    def along(seed: Tensor) -> tuple[Tensor, Tensor]:
        if not rate:
            return _traced_product(lambda y: f(t, y), (y,), (seed[:n].expand_as(y),))
        return _traced_product(f, (t, y), (seed[n].to(t.dtype).expand_as(t), seed[:n].expand_as(y)))

    values, slopes = torch.func.vmap(along)(seeds)
    return Linearisation(values[0], slopes[:n].movedim(0, -1), slopes[n] if rate else None)


def _traced_product(
    f: Callable[..., Tensor], point: tuple[Tensor, ...], direction: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    value, slope = torch.func.jvp(f, point, direction)[:2]
    return value, slope


def _check_state(y: Tensor) -> None:
    if y.is_complex() or y.ndim != 2:
        raise ValueError(
            f"Expected a real state of shape (batch, n), got {y.dtype} of shape {tuple(y.shape)}. Write a complex "
            "system in real and imaginary parts: `torch.view_as_real`."
        )


def _result(value: Any, algebra: Algebra, y: Tensor) -> Jet:
    result = as_jet(value, algebra, y)
    if result.shape != y.shape:
        raise ValueError(
            f"Expected a vector field, with values of shape {tuple(y.shape)}, got {tuple(result.shape)}. A different "
            "shape usually comes from broadcasting with the time."
        )
    return result
