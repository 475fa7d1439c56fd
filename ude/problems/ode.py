"""What is to be solved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ude._typing import State, VectorField


@dataclass(frozen=True, slots=True)
class ODEProblem:
    r"""An initial value problem $\dot y = f(t, y)$, or $\dot y = f(t, y, p)$, with $y(t_0) = y_0$.

    Args:
        vector_field: `f(t, y)`, or `f(t, y, p)` when `p` is given. Returns $\dot y$ in the structure of `y`.
        y0: State at `t_span[0]`: a tensor of any shape, or a nested tuple, list or dict of tensors.
        t_span: Start and end time. The end may lie before the start. With `batched=True` each may be a
            tensor of shape `(batch,)`: every sample has its own interval.
        p: Anything the vector field needs besides time and state; handed to it unchanged.
        batched: The first axis of every tensor in `y0` is a batch of independent samples. Each then has
            its own steps and status, and `f` receives `t` shaped to broadcast against the state,
            `(batch, 1, ..., 1)`, with the rank of the state (of its highest-rank tensor for a pytree).
        jacobian: `jacobian(t, y)`, or `jacobian(t, y, p)` when `p` is given: returns $\partial f / \partial y$ of a
            state that is one real tensor, of shape `(n, n)`, or `(batch, n, n)` with `batched=True`, the entry
            `[..., i, j]` being $\partial f_i / \partial y_j$. Used by implicit methods, which otherwise
            differentiate the vector field; give it where you know a cheaper way.

    Example:
        >>> import torch
        >>> decay = ODEProblem(lambda t, y: -y, torch.ones(3), (0.0, 1.0))
        >>> decay.batched
        False
    """

    vector_field: VectorField
    y0: State
    t_span: tuple[float | Tensor, float | Tensor]
    p: Any = None
    batched: bool = False
    jacobian: Callable[..., Tensor] | None = None
