"""The three kinds of rules, as handlers for the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude.ad.rules.table import Handler


def elementwise(rule: Callable[..., Any]) -> Handler:
    """Make a handler from a rule in terms of power series.

    Args:
        rule: From the series of u, and the other arguments of the function, which are no tensors, to the series of g(u)
            and of g'(u). The first coefficient of the series of u is the tensor itself.

    Example:
        >>> from ude import ad
        >>> handler = elementwise(lambda u: (u * u, u * 2.0))
        >>> ad.jet(handler, (torch.tensor(3.0), torch.tensor(1.0), torch.tensor(0.0)))
        (tensor(9.), tensor(6.), tensor(1.))
    """

    def handler(input: Any, *args: Any, **kwargs: Any) -> Any:
        x = input
        if not is_lifted(x):
            raise TypeError("Expected a jet as first argument; compute with plain tensors plainly.")
        if not args and not kwargs:
            return x.elementwise(rule)
        for other in (*args, *kwargs.values()):
            # What a rule closes over is hidden from autograd.
            if is_lifted(other) or (isinstance(other, Tensor) and other.requires_grad):
                name = getattr(rule, "__name__", "this function")
                raise TypeError(
                    f"Expected derivatives through the first argument of `{name}` only; compute the others plainly."
                )
        return x.elementwise(lambda u: rule(u, *args, **kwargs))

    return handler


def linear(function: Callable[..., Any], together: Sequence[int] = (), only: Sequence[int] | None = None) -> Handler:
    """Make a handler for a function that is linear in its jets.

    Args:
        function: Called with tensors in place of jets; must work under `torch.func.vmap`.
        together: Positions of arguments, tensors or lists of tensors, in which the function is linear together, so that
            tensors without derivatives may stand there among jets, as in `torch.cat`.
        only: Positions of the arguments in which the function is linear; a jet elsewhere is refused. Left out, it is
            taken to be linear in all jets together, wherever they stand.

    Example:
        >>> from ude import ad
        >>> handler = linear(lambda x: x.cumsum(0))
        >>> ad.jet(handler, (torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])))
        (tensor([1., 3.]), tensor([0., 1.]))
    """

    def handler(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = pytree.tree_flatten((args, kwargs), is_leaf=is_lifted)
        if only is not None:
            _refuse_elsewhere(function, args, kwargs, only)
        joint = _positions(args, together)
        places = [i for i, leaf in enumerate(leaves) if is_lifted(leaf) or (i in joint and isinstance(leaf, Tensor))]
        operands = [leaves[i] for i in places]
        kind = type(next(operand for operand in operands if is_lifted(operand)))

        def on_operands(*tensors: Tensor) -> Any:
            filled = list(leaves)
            for place, tensor in zip(places, tensors, strict=True):
                filled[place] = tensor
            plain_args, plain_kwargs = pytree.tree_unflatten(filled, spec)
            return function(*plain_args, **plain_kwargs)

        return kind.linear(on_operands, operands)

    return handler


def bilinear(function: Callable[[Tensor, Tensor], Tensor]) -> Handler:
    """Make a handler for a function that is linear in each of its first two arguments.

    Args:
        function: Called with tensors; must work under `torch.func.vmap`. Further arguments are passed on.

    Example:
        >>> from ude import ad
        >>> one, t = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
        >>> ad.jet(lambda x: bilinear(torch.dot)(x, x), (one, t, one))
        (tensor(1.), tensor(0.), tensor(3.))
    """

    def handler(input: Any, other: Any, *args: Any, **kwargs: Any) -> Any:
        return multiplied(lambda x, y: function(x, y, *args, **kwargs), input, other)

    return handler


def multiplied(function: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    """Apply a bilinear function to two operands of which one or both carry derivatives."""
    if is_lifted(a) and is_lifted(b):
        return type(a).bilinear(function, a, b)
    return joined(lambda x: function(x, b), a) if is_lifted(a) else joined(lambda y: function(a, y), b)


def joined(function: Callable[..., Any], *operands: Any) -> Any:
    """Apply a function that is linear in all operands together; if none carries derivatives, to the plain tensors."""
    kind = kind_of(*operands)
    return function(*operands) if kind is None else kind.linear(function, operands)


def rearranged(function: Callable[..., Any]) -> Handler:
    """Make a handler for a function that is linear in its first argument, the only one with floats."""

    def handler(input: Any, *args: Any, **kwargs: Any) -> Any:
        for other in pytree.tree_leaves((args, kwargs), is_leaf=is_lifted):
            if is_lifted(other) or (isinstance(other, Tensor) and other.is_floating_point()):
                name = getattr(function, "__name__", "this function")
                raise NotImplementedError(f"Expected floats in the first argument of `{name}` only, got more.")
        return joined(lambda x: function(x, *args, **kwargs), input)

    return handler


def kind_of(*operands: Any) -> Any:
    """Return the class of what carries derivatives among the operands; None if nothing does."""
    return next((type(operand) for operand in operands if is_lifted(operand)), None)


def pinned(x: Any, value: Tensor) -> Any:
    """Return the same derivatives with a more accurate evaluation of the value."""
    return x.pinned(value)


def as_operand(x: Any, like: Any) -> Any:
    """Return a number as a tensor that fits a jet; jets and tensors as they are."""
    if is_lifted(x) or isinstance(x, Tensor):
        return x
    dtype = like.dtype if isinstance(x, float | int) else like.dtype.to_complex()
    return torch.as_tensor(x, dtype=dtype, device=like.device)


def primal(function: Callable[..., Any]) -> Handler:
    """Make a handler for a function of the values alone, such as a comparison; its result has no derivatives."""

    def handler(*args: Any, **kwargs: Any) -> Any:
        plain_args, plain_kwargs = pytree.tree_map(value_of, (args, kwargs), is_leaf=is_lifted)
        return function(*plain_args, **plain_kwargs)

    return handler


def is_lifted(x: object) -> bool:
    """Whether something carries derivatives."""
    from ude.ad.lifted import Lifted

    return isinstance(x, Lifted)


def value_of(x: Any) -> Any:
    """Return a tensor without its derivatives, anything else as it is."""
    return x.value if is_lifted(x) else x


def _refuse_elsewhere(function: Any, args: Sequence[Any], kwargs: dict[str, Any], only: Sequence[int]) -> None:
    """Raise if a jet stands where the function is not linear."""
    others = [argument for place, argument in enumerate(args) if place not in only] + list(kwargs.values())
    if any(is_lifted(leaf) for leaf in pytree.tree_leaves(others, is_leaf=is_lifted)):
        name = getattr(function, "__name__", "this function")
        raise TypeError(
            f"Expected derivatives through the positional arguments {tuple(only)} of `{name}` only, in which it is "
            "linear; compute the others plainly."
        )


def _positions(args: Sequence[Any], together: Sequence[int]) -> set[int]:
    """Return the places of the leaves of some arguments among all leaves."""
    places, start = set(), 0
    for number, argument in enumerate(args):
        count = len(pytree.tree_leaves(argument, is_leaf=is_lifted))
        if number in together:
            places.update(range(start, start + count))
        start += count
    return places
