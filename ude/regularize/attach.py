"""A cost for programs that solve with torchdiffeq or torchsde, and keep doing so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from ude.methods.torchdiffeq_names import ADAMS, ADAPTIVE, FIXED
from ude.regularize.attached import Attached
from ude.regularize.attached_drift import attach_to_drift
from ude.regularize.attached_steps import attach_to_steps
from ude.regularize.regularizer import Regularizer
from ude.regularize.repeated import Repeater, StepOptions


def attach(
    func: Callable[..., Any],
    cost: Regularizer,
    *,
    samples: int | None = 4,
    method: str = "dopri5",
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    options: Mapping[str, Any] | None = None,
    generator: torch.Generator | None = None,
) -> AbstractContextManager[Attached]:
    r"""Attach a cost to the solves that torchdiffeq or torchsde makes inside of a `with` block.

    **torchdiffeq.** Its callbacks, which are set on `func` for the time of the block, tell of every step. Some of the
    steps that were taken are drawn, each as likely as the other, and made again on the autograd graph: their error
    ratios are those of the solver, to rounding, and are compared with the length that it chose next, so that a wrong
    tolerance does not pass. `ErrorEstimate` and `StiffnessEstimate` are reduced over the steps drawn; of a sum, what is
    drawn stands for all steps. Integrals such as `TaylorEnergy` are the sum over steps of the integrand at the start
    times the length, estimated without bias by the steps drawn; they end with the last step, which torchdiffeq takes
    beyond the last time. Under `odeint` the gradient goes through the states as well; under `odeint_adjoint` the states
    are constants, and the cost is the local one (see `Local`). Step lengths are constants.

    **torchsde.** `func` has attributes `sde_type` and `noise_type`. Calls of its drift are drawn, and `KineticEnergy`
    or `JacobianFrobenius` is the mean over these, times the time between the first call and the last. Solve with
    constant steps. Under `sdeint_adjoint` the states are constants, and the backward pass must come after the block.

    Several solves in one block have the mean of their costs. Solves of which one goes on where the one before ended
    count as one.

    Args:
        func: The vector field that the solver is given: a module, a function, or anything that takes attributes.
        cost: A regularizer or a sum of such. Its own `samples` and `nodes` are left out.
        samples: Steps to draw in each solve, None for all; each costs the evaluations of one step and one more for
            an estimate, one for an integral.
        method: That of the solve, torchdiffeq's default if it is not named there either.
        rtol: Relative tolerance of the solve, likewise.
        atol: Absolute tolerance of the solve, likewise.
        options: Options of the solve, such as `norm`.
        generator: Source of randomness; torch's own if not given.

    Returns:
        A context manager. Its target has the cost as `value()`, for use in the block or after it, and counts: `nfe`,
        `accepted`, `rejected`.

    Raises:
        ValueError: If the cost cannot be had of this method, or another is attached. From `value()`: if there was no
            solve, or it was another than announced, or the cost is not finite.
        TypeError: If `func` takes no attributes.

    Example:
        >>> import torch, torchdiffeq
        >>> from ude.regularize import ErrorEstimate, attach
        >>> rate = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
        >>> decay = lambda t, y: rate * y
        >>> with attach(decay, ErrorEstimate(), samples=None) as regularized:
        ...     y = torchdiffeq.odeint(decay, torch.ones(2).double(), torch.tensor([0.0, 1.0]))
        >>> loss = y[-1].sum() + 1e2 * regularized.value()
        >>> regularized.accepted, regularized.rejected, regularized.nfe
        (8, 0, 50)
    """
    if samples is not None and (not isinstance(samples, int) or samples < 1):
        raise ValueError(f"`samples` must be an integer of at least 1, or None for all, got {samples!r}.")
    if hasattr(func, "sde_type") and hasattr(func, "noise_type"):
        return attach_to_drift(func, cost, samples, generator)
    known = (*ADAPTIVE, *FIXED, *ADAMS)
    if method not in known:
        raise ValueError(f"`method` must be one whose steps torchdiffeq tells of, {', '.join(known)}, got {method!r}.")
    stepper = ADAPTIVE.get(method, FIXED.get(method))
    repeater = Repeater(func=func, method=stepper, name=method, rtol=rtol, atol=atol, options=StepOptions.read(options))
    return attach_to_steps(cost, repeater, samples, generator)
