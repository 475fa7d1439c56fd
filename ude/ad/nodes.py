r"""What a tape is made of: each node knows the power series of its result, and the transpose of that.

A coefficient k is computed from coefficients up to k of the operands (`build`), and the cotangent of coefficient k of
an operand from those of coefficients k and up of the result (`pull`). Cotangents follow the convention of autograd: the
transpose of a complex map is its adjoint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ude.ad.recording import is_recorded
from ude.ad.series import Coefficient, Product, Rule, Series, accumulate, given, pinned

Kept: TypeAlias = "Sequence[Sequence[Any]]"
"""Coefficients of the series that `Node.kept` names."""

Captured: TypeAlias = "Sequence[Tensor] | None"
"""Values for the tensors that a computation closes over; None for the tensors themselves."""


class Cotangents:
    """Cotangents of all coefficients of all nodes, and of the tensors that nodes close over.

    Args:
        counts: Number of coefficients of each node.
        values: The tensors closed over.
        autocast: Makes the state of autocast in which functions are to be evaluated again.
    """

    __slots__ = ("autocast", "captured", "coefficients", "is_own", "values")

    def __init__(self, counts: Sequence[int], values: Sequence[Tensor], autocast: Callable[[], Any]) -> None:
        self.values, self.autocast = values, autocast
        self.coefficients: list[list[Tensor | None]] = [[None] * count for count in counts]
        self.captured: list[Tensor | None] = [None] * len(values)
        self.is_own = [False] * len(values)  # no other name for the memory

    def add(self, node: Node, k: int, bar: Tensor) -> None:
        """Add to coefficient k of a node, summed over what was broadcast."""
        row = self.coefficients[node.place]
        if bar.shape != node.shape or bar.dtype != node.dtype:
            bar = fitted(bar, node.shape, node.dtype)
        total = row[k]
        row[k] = bar if total is None else total + bar

    def add_captured(self, number: int, bar: Tensor) -> None:
        """Add to a tensor closed over."""
        bar = fitted(bar, self.values[number].shape, self.values[number].dtype)
        total = self.captured[number]
        self.captured[number] = bar if total is None else total + bar
        self.is_own[number] = total is not None

    def add_product(self, number: int, bar: Tensor, x: Tensor) -> None:
        r"""Add $\bar y^T x$ to a matrix closed over."""
        total = self.captured[number]
        if total is None:
            self.captured[number] = bar.mT @ x
        elif is_recorded() or not self.is_own[number]:
            self.captured[number] = torch.addmm(total, bar.mT, x)
        else:
            total.addmm_(bar.mT, x)
        self.is_own[number] = True


class Node(ABC):
    """A result in a computation.

    Attributes:
        operands: What it is computed from.
        place: Its number on the tape.
        shape: Shape of its value; coefficients may be smaller and broadcast to it.
        dtype: Number format of its value.
        count: How many coefficients of it are needed.
        series: Its coefficients, while they are being computed.
    """

    __slots__ = ("count", "dtype", "operands", "place", "series", "shape")

    is_opaque = False
    """It applies a function of which nothing is known, so that tensors may enter unseen."""

    operands: tuple[Node, ...]
    place: int
    shape: torch.Size
    dtype: torch.dtype
    count: int
    series: Series

    def __init__(self, *operands: Node) -> None:
        self.operands = operands

    @abstractmethod
    def build(self, operands: Sequence[Series], captured: Captured) -> Series:
        """Return the series of the result from those of the operands."""

    def kept(self) -> list[Series]:
        """Return the series that `pull` needs."""
        return []

    def reread(self) -> Sequence[Any]:
        """Return the tensors without a gradient that `pull` reads again."""
        return ()

    def pull(self, k: int, bars: Cotangents, kept: Kept) -> None:  # noqa: B027  # what has no operands adds nothing
        """Add what coefficient k contributes to the cotangents of the operands."""


class Root(Node):
    """What the computation starts from: the time and the state."""

    __slots__ = ()

    def build(self, operands: Sequence[Series], captured: Captured) -> Series:
        """Return the series that it was given."""
        return self.series


class Constant(Node):
    """A tensor that does not change with time."""

    __slots__ = ("number", "value")

    def __init__(self, value: Tensor, number: int | None) -> None:
        super().__init__()
        self.value, self.number = value, number

    def build(self, operands: Sequence[Series], captured: Captured) -> Series:
        r"""Return $(c, 0, 0, \dots)$."""
        return given([chosen(self.value, self.number, captured)])

    def pull(self, k: int, bars: Cotangents, kept: Kept) -> None:
        """Add the cotangent of $c$."""
        bar = bars.coefficients[self.place][0]
        if k == 0 and bar is not None and self.number is not None:
            bars.add_captured(self.number, bar)


class Elementwise(Node):
    r"""$y = g(u)$; its transpose is $\bar u_k = \sum_{m \geq k} v_{m-k}\, \bar y_m$ with $v = g'(u)$."""

    __slots__ = ("rule", "slope")

    is_opaque = True

    def __init__(self, rule: Rule, operand: Node) -> None:
        super().__init__(operand)
        self.rule = rule

    def build(self, operands: Sequence[Series], captured: Captured) -> Series:
        """Return the series of $g(u)$, noting that of $g'(u)$."""
        y, self.slope = self.rule(operands[0])
        return y

    def kept(self) -> list[Series]:
        """Return what the cotangents are multiplied with."""
        return [self.slope]

    def pull(self, k: int, bars: Cotangents, kept: Kept) -> None:
        r"""Add $\sum_{m \geq k} v_{m-k}\, \bar y_m$ to $\bar u_k$."""
        bar = transposed_product(kept[0], bars.coefficients[self.place], k)
        if bar is not None:
            bars.add(self.operands[0], k, bar)


class Times(Node):
    """The product of two nodes, number by number."""

    __slots__ = ()

    def build(self, operands: Sequence[Series], captured: Captured) -> Series:
        r"""Return $c_k = \sum_j a_j b_{k-j}$."""
        a, b = operands
        return Product(a, b)

    def kept(self) -> list[Series]:
        """Return what the cotangents are multiplied with."""
        return [operand.series for operand in self.operands]

    def pull(self, k: int, bars: Cotangents, kept: Kept) -> None:
        r"""Add $\sum_{m \geq k} b_{m-k}\, \bar c_m$ to $\bar a_k$, and likewise for the other factor."""
        row, (a, b) = bars.coefficients[self.place], self.operands
        if a is b:
            bar = transposed_product(kept[0], row, k, 2.0)
            if bar is not None:
                bars.add(a, k, bar)
            return
        for operand, other in ((a, kept[1]), (b, kept[0])):
            bar = transposed_product(other, row, k)
            if bar is not None:
                bars.add(operand, k, bar)


class Scaled(Node):
    """A node times a number or a tensor that does not change with time."""

    __slots__ = ("factor", "number")

    def __init__(self, operand: Node, factor: Any, number: int | None) -> None:
        super().__init__(operand)
        self.factor, self.number = factor, number

    def build(self, operands: Sequence[Series], captured: Captured) -> Series:
        r"""Return $s\,x_k$."""
        x, factor = operands[0], chosen(self.factor, self.number, captured)

        def step(k: int) -> Coefficient:
            coefficient = x[k]
            return None if coefficient is None else coefficient * factor

        return Series(step)

    def kept(self) -> list[Series]:
        """Return what the cotangents are multiplied with."""
        return [] if self.number is None else [self.operands[0].series]

    def reread(self) -> Sequence[Any]:
        """Return the factor."""
        return (self.factor,) if self.number is None else ()

    def pull(self, k: int, bars: Cotangents, kept: Kept) -> None:
        r"""Add $s\, \bar y_k$ to $\bar x_k$ and $\sum x_k \bar y_k$ to $\bar s$."""
        bar = bars.coefficients[self.place][k]
        if bar is None:
            return
        factor = chosen(self.factor, self.number, bars.values)
        bars.add(self.operands[0], k, bar * adjoint(factor))
        if self.number is not None and kept[0][k] is not None:
            bars.add_captured(self.number, bar * adjoint(kept[0][k]))


class Sum(Node):
    """A node plus `sign` times another."""

    __slots__ = ("sign",)

    def __init__(self, a: Node, b: Node, sign: float) -> None:
        super().__init__(a, b)
        self.sign = sign

    def build(self, operands: Sequence[Series], captured: Captured) -> Series:
        r"""Return $a_k \pm b_k$."""
        (a, b), sign = operands, self.sign

        def step(k: int) -> Coefficient:
            x, y = a[k], b[k]
            if y is None:
                return x
            if x is None:
                return y * sign
            return torch.add(x, y, alpha=sign) if isinstance(x, Tensor) and isinstance(y, Tensor) else x + y * sign

        return Series(step)

    def pull(self, k: int, bars: Cotangents, kept: Kept) -> None:
        r"""Add $\bar c_k$ and $\pm \bar c_k$ to the cotangents of the terms."""
        bar = bars.coefficients[self.place][k]
        if bar is None:
            return
        a, b = self.operands
        bars.add(a, k, bar)
        bars.add(b, k, bar if self.sign == 1.0 else bar * adjoint(self.sign))


class Shifted(Node):
    """A node plus `sign` times a number or a tensor that does not change with time."""

    __slots__ = ("number", "shift", "sign")

    def __init__(self, operand: Node, shift: Any, sign: float, number: int | None) -> None:
        super().__init__(operand)
        self.shift, self.sign, self.number = shift, sign, number

    def build(self, operands: Sequence[Series], captured: Captured) -> Series:
        r"""Return $x_0 \pm s, x_1, x_2, \dots$."""
        x, shift, sign = operands[0], chosen(self.shift, self.number, captured), self.sign

        def step(k: int) -> Coefficient:
            if k:
                return x[k]
            return torch.add(x.primal, shift, alpha=sign) if isinstance(shift, Tensor) else x.primal + sign * shift

        return Series(step)

    def pull(self, k: int, bars: Cotangents, kept: Kept) -> None:
        r"""Add $\bar y_k$ to $\bar x_k$ and $\pm \bar y_0$ to $\bar s$."""
        bar = bars.coefficients[self.place][k]
        if bar is None:
            return
        bars.add(self.operands[0], k, bar)
        if k == 0 and self.number is not None:
            bars.add_captured(self.number, bar if self.sign == 1.0 else bar * adjoint(self.sign))


class Pinned(Node):
    """A node with a more accurate evaluation of the same value."""

    __slots__ = ("value",)

    def __init__(self, operand: Node, value: Tensor) -> None:
        super().__init__(operand)
        self.value = value

    def build(self, operands: Sequence[Series], captured: Captured) -> Series:
        """Return the value given and the coefficients of the operand."""
        # Elsewhere, when it is differentiated twice, the plain evaluation has to do: its derivatives are recorded.
        return pinned(self.value, operands[0]) if captured is None else operands[0]

    def pull(self, k: int, bars: Cotangents, kept: Kept) -> None:
        r"""Add $\bar y_k$ to $\bar x_k$, the value being the operand's own."""
        bar = bars.coefficients[self.place][k]
        if bar is not None:
            bars.add(self.operands[0], k, bar)


def transposed_product(v: Sequence[Coefficient], bars: Sequence[Tensor | None], k: int, scale: float = 1.0) -> Any:
    r"""Return $s \sum_{m \geq k} \bar v_{m-k}\, \bar y_m$, the transpose of the product of power series with $v$."""
    if isinstance(v[0], Tensor) and v[0].is_complex():
        v = [adjoint(coefficient) for coefficient in v]
    return accumulate([(scale, v[m - k], bars[m]) for m in range(k, len(bars))])


def chosen(original: Any, number: int | None, captured: Captured) -> Any:
    """Return what stands for a tensor that a node closes over."""
    return original if number is None or captured is None else captured[number]


def full(coefficient: Coefficient, shape: torch.Size, like: Tensor) -> Tensor:
    """Return a coefficient with its broadcast axes and in the number format of a value."""
    if not isinstance(coefficient, Tensor):
        return like.new_full(shape, coefficient or 0.0)
    if coefficient.shape != shape:
        coefficient = coefficient.expand(shape)
    return coefficient if coefficient.dtype == like.dtype else coefficient.to(like.dtype)


def fitted(bar: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return a cotangent summed over what was broadcast, in the number format of its primal."""
    if bar.shape != shape:
        bar = bar.sum_to_size(shape)
    if bar.dtype != dtype:
        bar = bar.real if bar.is_complex() and not dtype.is_complex else bar
        bar = bar.to(dtype)
    return bar


def adjoint(x: Any) -> Any:
    """Return the complex conjugate, of real numbers the numbers themselves."""
    if isinstance(x, Tensor):
        return x.conj() if x.is_complex() else x
    return x.conjugate() if isinstance(x, complex) else x
