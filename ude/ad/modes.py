"""Forward and reverse mode under the names the rest of the library uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.utils import _pytree as pytree

from ude._checks import floating
from ude.ad.counting import record

__all__ = ["functional_call", "grad", "hvp", "jvp", "vjp", "vmap"]


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangents: Tensor | Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool = False,
) -> tuple[Tensor, ...]:
    r"""Reverse mode on a recorded graph: $\bar x = \bar y^T\, \partial y / \partial x$ for every input.

    One reverse product.

    Args:
        outputs: Tensors computed from `inputs`.
        inputs: Tensors with `requires_grad`.
        cotangents: $\bar y$, one per output; may be left out for scalar outputs.
        create_graph: Record the gradient's own computation, for higher derivatives.
        retain_graph: Keep the recorded graph, for another call.

    Returns:
        One gradient per input; zeros for an input that the outputs do not depend on.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> grad(x**2, [x])
        (tensor(6.),)
    """
    record(reverse=1)
    return torch.autograd.grad(
        outputs,
        list(inputs),
        cotangents,
        create_graph=create_graph,
        retain_graph=retain_graph or create_graph,
        materialize_grads=True,
    )


def jvp(f: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    r"""Forward mode: $f(x)$ and $\dot y = (\partial f / \partial x)\, \dot x$, at the cost of a small multiple of `f`.

    One evaluation, one forward product. Memory does not grow with the depth of `f`.

    Args:
        f: Function of tensors, or of pytrees of tensors.
        primals: Arguments of `f`, one entry each.
        tangents: $\dot x$, with the structure, shapes and dtypes of `primals`.

    Returns:
        $f(x)$ and $\dot y$, of one structure.

    Raises:
        ValueError: If `primals` hold anything but floating-point tensors, or `tangents` do not match them.

    Example:
        >>> jvp(torch.sin, (torch.tensor(0.0),), (torch.tensor(2.0),))
        (tensor(0.), tensor(2.))
    """
    for name, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, tuple):
            raise ValueError(
                f"`{name}` must be a tuple with one entry per argument of `f`, got {type(given).__name__}. "
                f"For one argument write `({name[:-1]},)`."
            )
    _check_differentiable("primals", primals)
    _check_alike("tangents", tangents, "`primals`", primals)
    record(evaluations=1, forward=1)
    value, tangent = torch.func.jvp(f, primals, tangents)[:2]
    return value, tangent


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    r"""Reverse mode: $f(x)$ and the function $\bar y \mapsto \bar y^T\, \partial f / \partial x$.

    One evaluation; one reverse product for each call of the function returned, which may be called any number of times.
    Memory grows with the depth of `f`.

    Args:
        f: Function of tensors, or of pytrees of tensors.
        primals: Arguments of `f`.

    Returns:
        $f(x)$, and the pullback: it takes $\bar y$, with the structure, shapes and dtypes of $f(x)$, to a tuple with
        one entry per argument of `f`.

    Raises:
        ValueError: If `primals` hold anything but floating-point tensors; from the pullback, if $\bar y$ does not match
            $f(x)$.

    Example:
        >>> value, pullback = vjp(torch.exp, torch.tensor(0.0))
        >>> pullback(torch.tensor(3.0))
        (tensor(3.),)
    """
    _check_differentiable("primals", primals)
    record(evaluations=1)
    value, transposed = torch.func.vjp(f, *primals)[:2]

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        _check_alike("cotangent", cotangent, "the value of `f`", value)
        record(reverse=1)
        return transposed(cotangent)

    return value, pullback


def hvp(f: Callable[[Any], Tensor], x: Any, v: Any) -> Any:
    r"""Hessian-vector product $\nabla^2 f(x)\, v$ of a scalar function, forward over reverse.

    One evaluation, one reverse and one forward product.

    Args:
        f: Function of one tensor, or of one pytree of tensors, with a scalar value.
        x: Where to differentiate.
        v: Vector, with the structure, shapes and dtypes of `x`.

    Returns:
        The product, with the structure, shapes and dtypes of `x`.

    Raises:
        ValueError: If `x` holds anything but floating-point tensors, `v` does not match it, or $f(x)$ is no scalar.

    Example:
        >>> hvp(lambda x: (x**3).sum(), torch.tensor([1.0, 2.0]), torch.ones(2))
        tensor([ 6., 12.])
    """
    _check_differentiable("x", x)
    _check_alike("v", v, "`x`", x)
    record(evaluations=1, forward=1, reverse=1)
    return torch.func.jvp(torch.func.grad(_scalar(f)), (x,), (v,))[1]


def _scalar(f: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    def checked(x: Any) -> Tensor:
        value = f(x)
        if not isinstance(value, Tensor) or value.ndim:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"The value of `f` must be a scalar tensor, got {got}. Sum it, or pick one entry.")
        return value

    return checked


def _check_differentiable(name: str, tree: Any) -> None:
    for i, leaf in enumerate(pytree.tree_leaves(tree)):
        if not isinstance(leaf, Tensor):
            raise ValueError(
                f"`{_leaf_name(name, tree, i)}` must be a tensor, got {type(leaf).__name__}. Close over what is not "
                "differentiated: `lambda x: f(x, other)`."
            )
        if not (leaf.is_floating_point() or leaf.is_complex()):
            floating(_leaf_name(name, tree, i), leaf)


def _check_alike(name: str, vectors: Any, like: str, points: Any) -> None:
    """Raise unless `vectors` has the structure of `points` and every tensor in it the shape and dtype."""
    ours, structure = pytree.tree_flatten(points)
    theirs, other = pytree.tree_flatten(vectors)
    if other != structure:
        expected, got = pytree.treespec_pprint(structure), pytree.treespec_pprint(other)
        raise ValueError(f"`{name}` must have the structure of {like}, {expected}, got {got}. Nest it the same way.")
    for i, (point, vector) in enumerate(zip(ours, theirs, strict=True)):
        if not isinstance(vector, Tensor):
            raise ValueError(
                f"`{_leaf_name(name, vectors, i)}` must be a tensor, got {type(vector).__name__}. "
                "Use zeros where nothing is wanted: `torch.zeros_like`."
            )
        if vector.shape != point.shape:
            raise ValueError(
                f"`{_leaf_name(name, vectors, i)}` must have the shape {tuple(point.shape)} of {like}, "
                f"got {tuple(vector.shape)}. For several vectors at once use `vmap`."
            )
        if vector.dtype != point.dtype:
            raise ValueError(
                f"`{_leaf_name(name, vectors, i)}` must have the dtype {point.dtype} of {like}, got {vector.dtype}. "
                f"Convert it with `.to({point.dtype})`."
            )


def _leaf_name(name: str, tree: Any, position: int) -> str:
    return name + pytree.keystr(pytree.tree_flatten_with_path(tree)[0][position][0])
