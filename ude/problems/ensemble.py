"""Many solves of one equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ude._typing import State, VectorField


@dataclass(frozen=True, slots=True)
class EnsembleProblem:
    r"""Initial value problems of one equation with different initial states, parameters or intervals, as one batch.

    The vector field is written for a single sample. `solve` runs all samples at once, each with its own steps and
    status; solutions look like those of a batched `ODEProblem`.

    Args:
        vector_field: `f(t, y)`, or `f(t, y, p)`, of one sample: `t` of shape `()`, `y` without the batch axis.
        y0: Initial states: tensors of shape `(samples, ...)`, in any nesting.
        t_span: Start and end; numbers, or tensors of shape `(samples,)`.
        p: Parameters; None, or tensors of shape `(samples, ...)`, in any nesting. What all samples share belongs into
            the vector field's closure.

    Example:
        >>> import torch
        >>> rates = torch.tensor([[1.0], [2.0]])
        >>> EnsembleProblem(lambda t, y, p: -p * y, torch.ones(2, 1), (0.0, 1.0), p=rates).p.shape
        torch.Size([2, 1])
    """

    vector_field: VectorField
    y0: State
    t_span: tuple[float | Tensor, float | Tensor]
    p: Any = None
