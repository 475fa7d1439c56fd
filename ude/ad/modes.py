"""Forward and reverse mode under the names the rest of the library uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

__all__ = ["functional_call", "grad", "hvp", "jacobian", "jvp", "vjp", "vmap"]


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangents: Tensor | Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool = False,
) -> tuple[Tensor, ...]:
    r"""Reverse mode on a recorded graph: $\bar x = \bar y^T\, \partial y / \partial x$ for every input.

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

    Example:
        >>> jvp(torch.sin, (torch.tensor(0.0),), (torch.tensor(2.0),))
        (tensor(0.), tensor(2.))
    """
    value, tangent = torch.func.jvp(f, primals, tangents)[:2]
    return value, tangent


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    r"""Reverse mode: $f(x)$ and the function $\bar y \mapsto \bar y^T\, \partial f / \partial x$.

    Example:
        >>> value, pullback = vjp(torch.exp, torch.tensor(0.0))
        >>> pullback(torch.tensor(3.0))
        (tensor(3.),)
    """
    value, pullback = torch.func.vjp(f, *primals)[:2]
    return value, pullback


def jacobian(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    r"""Dense Jacobian $\partial f_i / \partial x_j$, by whichever mode takes fewer passes.

    Args:
        f: Function of one tensor.
        x: Where to differentiate.

    Returns:
        Tensor of shape `(*f(x).shape, *x.shape)`.

    Example:
        >>> jacobian(lambda x: x**2, torch.tensor([1.0, 2.0]))
        tensor([[2., 0.],
                [0., 4.]])
    """
    with torch.no_grad():
        outputs = f(x).numel()
    mode = torch.func.jacfwd if x.numel() <= outputs else torch.func.jacrev
    return mode(f)(x)


def hvp(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    r"""Hessian-vector product $\nabla^2 f(x)\, v$ of a scalar function, forward over reverse.

    Example:
        >>> hvp(lambda x: (x**3).sum(), torch.tensor([1.0, 2.0]), torch.ones(2))
        tensor([ 6., 12.])
    """
    return jvp(torch.func.grad(f), (x,), (v,))[1]
