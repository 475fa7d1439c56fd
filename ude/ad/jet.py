"""Jets: tensors with slots for derivatives in some algebra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude.ad.algebra import Algebra
from ude.ad.algebra.blocks import common_shape
from ude.ad.algebra.cache import univariate
from ude.ad.fused import Origin, apply, linear_layer
from ude.ad.lifted import Lifted, TensorFunction
from ude.ad.series import Rule


class Jet(Lifted):
    r"""A tensor with values in an algebra.

    Args:
        algebra: What the slots mean and how they multiply.
        value: The tensor, shape S.
        slots: Slots 1, 2, ... of the algebra, stacked on a first axis, of shape `(slots, *S)`, or with axes of length 1
            where they do not vary; they may end after any degree, the rest being zero. None if all are zero.

    Raises:
        ValueError: If slots and value do not fit.
    """

    __slots__ = ("algebra", "is_recorded", "origin", "slots", "value")

    def __init__(
        self, algebra: Algebra, value: Tensor, slots: Tensor | None = None, origin: Origin | None = None
    ) -> None:
        if slots is not None and not torch.compiler.is_compiling():  # sizes may be symbols there
            _check_slots(algebra, value, slots)
        self.algebra = algebra
        self.is_recorded = torch.is_grad_enabled()
        self.value = value
        self.slots = slots
        self.origin = origin  # what it is a function of, so that a layer can keep that instead

    def __repr__(self) -> str:
        return f"Jet({self.algebra!r}, shape {tuple(self.shape)}, degree {self.degree}, {self.dtype})"

    @property
    def order(self) -> int:
        """Order of the algebra."""
        return self.algebra.order

    @property
    def degree(self) -> int:
        """The highest degree that may differ from zero."""
        return self.algebra.support(self.slots)

    def constant(self, value: Tensor) -> Jet:
        """Return a tensor without derivatives as a jet."""
        return Jet(self.algebra, value)

    def nilpotent(self) -> Jet:
        """Return the derivatives with a value of zero."""
        return Jet(self.algebra, torch.zeros_like(self.value), self.slots)

    def pinned(self, value: Tensor) -> Jet:
        """Return the same derivatives with a more accurate evaluation of the value, of the same shape."""
        return Jet(self.algebra, value, self.slots)

    def dense(self) -> Tensor:
        """Return all slots, zeros and repeated ones too, shape `(dim - 1, *shape)`."""
        return _padded(self, self.algebra.dim - 1)

    def slot(self, number: int) -> Tensor:
        """Return one slot, numbered from 1, shape `shape`."""
        if not 1 <= number < self.algebra.dim:
            raise IndexError(f"Expected a slot number from 1 to {self.algebra.dim - 1}, got {number}.")
        if self.slots is None or number > len(self.slots):
            return torch.zeros_like(self.value)
        return self.slots[number - 1].expand(self.shape)

    def elementwise(self, rule: Rule) -> Jet:
        """Apply a function to every number."""
        _common([self])
        return Jet(self.algebra, *apply(self.algebra, rule, self.value, self.slots))

    def layer(self, weight: Tensor, bias: Tensor | None) -> Any:
        """Return x W^T + b, a linear layer."""
        _common([self])
        if self.slots is None or weight.ndim != 2:
            return super().layer(weight, bias)
        return Jet(self.algebra, *linear_layer(self.value, self.slots, weight, bias, self.origin))

    @classmethod
    def linear(cls, function: TensorFunction, operands: Sequence[Lifted | Tensor]) -> Any:
        """Apply a function that is linear in all operands together."""
        jets = [cast(Jet, operand) for operand in operands if isinstance(operand, Lifted)]
        algebra = _common(jets)
        values = [operand.value if isinstance(operand, Lifted) else operand for operand in operands]
        result = function(*values)
        count = max(0 if jet.slots is None else len(jet.slots) for jet in jets)
        if count == 0:
            return pytree.tree_map_only(Tensor, lambda value: Jet(algebra, value), result)
        stacked = [
            _padded(cast(Jet, operand), count) if isinstance(operand, Lifted) else _zeros(operand, count)
            for operand in operands
        ]
        slots = torch.func.vmap(function)(*stacked)
        return pytree.tree_map(lambda value, slot: Jet(algebra, value, slot), result, slots)

    @classmethod
    def bilinear(cls, function: TensorFunction, a: Lifted, b: Lifted) -> Jet:
        """Apply a function that is linear in each of two operands."""
        first, second = cast(Jet, a), cast(Jet, b)
        algebra = _common([first, second])
        product = _along_slots(function)
        # Slots that do not vary along an axis must count once for each entry of it.
        blocks = algebra.multiply(_blocks(first.expanded()), _blocks(second.expanded()), product)
        return Jet(algebra, cast(Tensor, blocks[0]), algebra.join(blocks))

    def expanded(self) -> Jet:
        """Return the same with slots of the full shape."""
        return Jet(self.algebra, self.value, None if self.slots is None else self.slots.expand(-1, *self.shape))

    # Fast ways for what networks do most

    def times(self, other: Jet) -> Jet:
        """Multiply two jets number by number."""
        algebra = _common([self, other])
        ndim = max(self.ndim, other.ndim)
        blocks = algebra.multiply(_blocks(self.aligned(ndim)), _blocks(other.aligned(ndim)))
        return Jet(algebra, cast(Tensor, blocks[0]), algebra.join(blocks))

    def scaled(self, factor: Tensor | complex) -> Jet:
        """Multiply by a tensor without derivatives, or by a number."""
        _common([self])
        value = self.value * factor
        slots = self.aligned(value.ndim).slots
        # A number format of the factor counts for less against slots, which have one axis more than the value.
        return Jet(self.algebra, value, None if slots is None else slots.to(value.dtype) * factor)

    def plus(self, other: Lifted | Tensor | complex, sign: float = 1.0) -> Jet:
        """Add `sign` times a jet, tensor or number."""
        _common([self])
        if not isinstance(other, Jet):
            value = (
                torch.add(self.value, other, alpha=sign)
                if isinstance(other, Tensor)
                else self.value + sign * cast(complex, other)
            )
            slots = self.aligned(value.ndim).slots
            return Jet(self.algebra, value, None if slots is None else slots.to(value.dtype))
        algebra = _common([self, other])
        value = torch.add(self.value, other.value, alpha=sign)
        x, y = (
            None if jet.slots is None else jet.aligned(value.ndim).slots.to(value.dtype)  # pyright: ignore[reportOptionalMemberAccess]
            for jet in (self, other)
        )
        if x is None or y is None:
            return Jet(algebra, value, (None if y is None else y * sign) if x is None else x)
        common = min(len(x), len(y))
        total = torch.add(x[:common], y[:common], alpha=sign)
        if len(x) != len(y):
            rest = x[common:] if len(x) > len(y) else y[common:] * sign
            shape = common_shape([total.shape[1:], rest.shape[1:]])
            total = torch.cat([total.expand(-1, *shape), rest.expand(-1, *shape)])
        return Jet(algebra, value, total)

    def mapped(self, function: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor] | None = None) -> Jet:
        """Apply an affine function that takes any leading axes for a batch; `derivative` is its linear part."""
        _common([self])
        value, slots = function(self.value), self.slots
        if slots is not None:
            wide = torch.promote_types(value.dtype, slots.dtype)
            slots = (derivative or function)(slots.to(wide)).to(value.dtype)
        return Jet(self.algebra, value, slots)

    def aligned(self, ndim: int) -> Jet:
        """Return the same with axes of length 1 put in front, as broadcasting to `ndim` axes does."""
        missing = ndim - self.ndim
        if missing <= 0 or self.slots is None:
            return self
        slots = self.slots.reshape(len(self.slots), *(1,) * missing, *self.slots.shape[1:])
        return Jet(self.algebra, self.value.reshape(*(1,) * missing, *self.shape), slots)


def jet(f: Callable[[Any], Any], series: Sequence[Any]) -> tuple[Any, ...]:
    r"""Push a power series through a function.

    For $x(t) = \sum_k x_k t^k$ the coefficients of $f(x(t)) = \sum_k y_k t^k$, exact up to the order given. Costs
    $O(K^2)$ elementwise products and K + 1 products with each matrix.

    Args:
        f: Function of a tensor or a pytree of tensors.
        series: The K + 1 normalised coefficients $x_k = x^{(k)}(0) / k!$; each a tensor or a pytree of one structure,
            or all of them one tensor of shape `(K + 1, *shape)`.

    Returns:
        The K + 1 coefficients of the result, each with the structure of `f(series[0])`.

    Raises:
        ValueError: If there are fewer than 2 coefficients, or their structures, shapes or number formats differ.

    Example:
        >>> zero, one = torch.tensor(0.0), torch.tensor(1.0)
        >>> jet(torch.exp, (zero, one, zero, zero))
        (tensor(1.), tensor(1.), tensor(0.5000), tensor(0.1667))
    """
    if len(series) < 2:
        raise ValueError(f"Expected the value and at least 1 coefficient, got {len(series)} coefficients in all.")
    algebra = univariate(len(series) - 1)
    flat = [pytree.tree_flatten(coefficient) for coefficient in series]
    leaves, specs = [leaves for leaves, _ in flat], [spec for _, spec in flat]
    for k, spec in enumerate(specs):
        if spec != specs[0]:
            raise ValueError(f"Expected coefficients of one structure, {specs[0]}, got {spec} for coefficient {k}.")
    jets = [_from_coefficients(algebra, coefficients) for coefficients in zip(*leaves, strict=True)]
    result, spec = pytree.tree_flatten(f(pytree.tree_unflatten(jets, specs[0])), is_leaf=lambda x: isinstance(x, Jet))
    columns = [_coefficients(algebra, leaf) for leaf in result]
    return tuple(pytree.tree_unflatten([column[k] for column in columns], spec) for k in range(len(series)))


def check_float(x: Tensor, name: str) -> None:
    """Raise unless x is a tensor that can have derivatives."""
    if not isinstance(x, Tensor):
        raise TypeError(f"Expected a tensor for {name}, got {type(x).__name__}.")
    if not (x.is_floating_point() or x.is_complex()):
        raise TypeError(f"Expected real or complex floats for {name}, got {x.dtype}. Convert it with `.double()`.")


def _check_slots(algebra: Algebra, value: Tensor, slots: Tensor) -> None:
    """Raise unless the slots have the shape of the value, or 1 where they do not vary, behind the slot axis."""
    if slots.shape[0] not in algebra.prefixes:
        raise ValueError(
            f"Expected whole degrees of slots, {' or '.join(map(str, algebra.prefixes))} of them, got {len(slots)}."
        )
    shape, expected = slots.shape[1:], value.shape
    if shape == expected:
        return
    if len(shape) != len(expected) or any(a not in (1, b) for a, b in zip(shape, expected, strict=True)):
        raise ValueError(
            f"Expected slots of shape (slots, {', '.join(map(str, expected))}), or with axes of length 1 where they do "
            f"not vary, got {tuple(slots.shape)}."
        )


def _from_coefficients(algebra: Algebra, coefficients: Sequence[Tensor]) -> Jet:
    value = coefficients[0]
    check_float(value, "coefficient 0")
    for k, coefficient in enumerate(coefficients):
        if coefficient.shape != value.shape or coefficient.dtype != value.dtype:
            raise ValueError(
                f"Expected coefficient {k} with the shape and format of the value, {tuple(value.shape)} {value.dtype}, "
                f"got {tuple(coefficient.shape)} {coefficient.dtype}."
            )
    return Jet(algebra, value, torch.stack(tuple(coefficients[1:])))


def _coefficients(algebra: Algebra, leaf: Any) -> list[Any]:
    if isinstance(leaf, Jet):
        return [leaf.value, *leaf.dense().unbind(0)]
    zero = torch.zeros_like(leaf) if isinstance(leaf, Tensor) else 0 * leaf
    return [leaf, *[zero] * algebra.order]


def _common(jets: Sequence[Jet]) -> Algebra:
    """Return the algebra of all of them; raise where autograd has stopped to look on."""
    algebra = jets[0].algebra
    if any(jet.is_recorded for jet in jets) and not torch.is_grad_enabled():
        raise ValueError(
            "Expected operations that autograd records, got one under `torch.no_grad()`, inside of an "
            "`autograd.Function` or of a reentrant checkpoint: derivatives by parameters would be lost. Take these out "
            "of the function, or do all of it under `torch.no_grad()`."
        )
    for other in jets[1:]:
        if other.algebra is not algebra and other.algebra != algebra:
            raise ValueError(
                f"Expected jets of one algebra, got {algebra!r} and {other.algebra!r}. Use `Product` for derivatives "
                "of derivatives."
            )
    return algebra


def _padded(jet: Jet, count: int) -> Tensor:
    """Return the first `count` slots with the full shape, zeros where there are none."""
    if jet.slots is None:
        return jet.value.new_zeros((count, *jet.shape))
    slots = jet.slots.expand(-1, *jet.shape)
    missing = count - len(slots)
    return slots if missing == 0 else torch.cat([slots, slots.new_zeros((missing, *jet.shape))])


def _zeros(value: Tensor, count: int) -> Tensor:
    return torch.zeros_like(value).expand(count, *value.shape)


def _blocks(jet: Jet) -> list[Tensor | None]:
    return jet.algebra.blocks(jet.value, jet.slots)


def _along_slots(function: TensorFunction) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function of slots side by side, each operand with one slot for all or one for each."""

    def product(a: Tensor, b: Tensor) -> Tensor:
        if len(a) == len(b):
            return torch.func.vmap(function)(a, b)
        if len(a) == 1:
            return torch.func.vmap(function, (None, 0))(a[0], b)
        return torch.func.vmap(function, (0, None))(a, b[0])

    return product


def _flatten(jet: Jet) -> tuple[list[Any], Any]:
    return [jet.value, jet.slots], jet.algebra


def _unflatten(children: Any, algebra: Any) -> Jet:
    result = object.__new__(Jet)  # without checks: what is put into a tree need not be tensors
    result.algebra, result.origin, result.is_recorded = algebra, None, torch.is_grad_enabled()
    result.value, result.slots = children
    return result


pytree.register_pytree_node(Jet, _flatten, _unflatten)
