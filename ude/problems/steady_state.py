"""What is to come to rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ude._typing import State, VectorField


@dataclass(frozen=True, slots=True)
class SteadyStateProblem:
    r"""Find the state where nothing changes, $f(t, y) = 0$ or $f(t, y, p) = 0$, that $y_0$ is led to.

    Args:
        vector_field: As in `ODEProblem`; should not depend on time.
        y0: Where to begin: a tensor of any shape, or a nested tuple, list or dict of tensors.
        p: Anything the vector field needs besides time and state.
        batched: The first axis of every tensor in `y0` is a batch of independent samples.
        t: Time at which the vector field is looked at.
        jacobian: As in `ODEProblem`.
    """

    vector_field: VectorField
    y0: State
    p: Any = None
    batched: bool = False
    t: float = 0.0
    jacobian: Callable[..., Tensor] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyStateSolution:
    """A state at rest.

    Args:
        y: The state, with the structure of `y0`; differentiable in `p` and what the vector field closes over.
        residual: Root mean square of `f_i / (atol + rtol * |y_i|)` per sample, at most 1 after a success.
        nfe: Evaluations of the vector field on the way in time, per sample; see `Stats`. The last steps of Newton's
            method come on top.
        success: The residual is small enough; a boolean tensor of shape `()` or `(batch,)`.
    """

    y: State
    residual: Tensor
    nfe: Tensor
    success: Tensor
