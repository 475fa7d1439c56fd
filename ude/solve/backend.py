"""What a solver of another library must offer, and how its result becomes a `Solution`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.brownian import BoundPath
from ude.problems import Interpretation, Noise, Solution, Stats, Status, Steps
from ude.solve.flatten import Layout
from ude.solve.times import Span


class NoiseTask(NamedTuple):
    """What drives the state of an `SDEProblem`, and in which steps.

    Args:
        diffusion: On `(batch, state)`; of that shape, or with the components of the noise behind it.
        noise: Kind of the noise.
        interpretation: Of the integral.
        components: Brownian motions per sample.
        path: The Brownian path; None to draw one.
        dt: Length of the steps.
    """

    diffusion: FlatField
    noise: Noise
    interpretation: Interpretation
    components: int
    path: BoundPath | None
    dt: float


class BackendTask(NamedTuple):
    """What a backend is asked to do.

    Args:
        field: Vector field on `(batch, state)`.
        y0: Initial state, shape `(batch, state)`.
        ts: Start, times to save at in the direction of time, and end; shape `(times,)`, no two alike.
        rtol: Relative tolerance, shape `()` or `(batch, state)`.
        atol: Absolute tolerance, likewise.
        noise: What drives the state besides the vector field; None for ordinary equations.
    """

    field: FlatField
    y0: Tensor
    ts: Tensor
    rtol: Tensor
    atol: Tensor
    noise: NoiseTask | None = None


class Result(NamedTuple):
    """What a backend gives back.

    Args:
        ys: States at `ts`, shape `(times, batch, state)`; fewer rows after a failure.
        message: Why it failed; empty after a success.
    """

    ys: Tensor
    message: str


@runtime_checkable
class Backend(Protocol):
    """A whole solver of another library, given to `solve` in the place of a method."""

    def integrate(self, task: BackendTask) -> Result:
        """Solve from the first to the last of the times."""
        ...


def solve_by_backend(
    backend: Backend,
    layout: Layout,
    field: FlatField,
    y0: Tensor,
    span: Span,
    times: Tensor | None,
    tolerances: tuple[Tensor, Tensor],
    noise: NoiseTask | None = None,
) -> tuple[Solution, str]:
    """Let another library solve, and put its result into our form.

    Args:
        backend: The library's solver.
        layout: Between the user's state and `(batch, state)`.
        field: Vector field.
        y0: Initial state, shape `(batch, state)`.
        span: The interval.
        times: Times to save at, shape `(times, batch)`.
        tolerances: Relative and absolute tolerance.
        noise: What drives the state besides the vector field.

    Returns:
        The solution, and why it failed, if it did.

    Raises:
        ValueError: If the samples do not share their times, or none are given.
    """
    if times is None:
        raise ValueError("A backend does not report its steps: name the times you want in `save_at`.")
    ts = torch.cat([span.t0.unsqueeze(0), times, span.t1.unsqueeze(0)])
    if not bool((ts == ts[:, :1]).all()):
        raise ValueError("A backend takes the same steps for all samples: they must share `t_span` and `save_at`.")
    ts = ts[:, 0]
    new = torch.cat([torch.ones_like(ts[:1], dtype=torch.bool), ts.diff() != 0])
    counting = _Counting(field)
    if bool(new.sum() > 1):
        result = backend.integrate(BackendTask(counting, y0, ts[new], *tolerances, noise))
    else:
        result = Result(y0.unsqueeze(0), "")
    missing = y0.new_full((int(new.sum()) - len(result.ys), *y0.shape), torch.nan)
    ys = torch.cat([result.ys, missing])[new.cumsum(0) - 1][1:-1]
    shape = (len(y0),) if layout.batched else ()
    status = torch.full(shape, int(Status.BACKEND_FAILED if result.message else Status.SUCCESS), device=y0.device)
    zero = torch.zeros_like(status)
    nothing = ts.new_empty(0, *shape)
    steps = Steps(t=nothing, dt=nothing, error=nothing, stiffness=nothing, accepted=nothing.bool())
    stats = Stats(nfe=zero + counting.calls, accepted=zero, rejected=zero)
    return Solution(ts=times[:, 0], ys=layout.unflatten(ys), steps=steps, stats=stats, status=status), result.message


class _Counting:
    """A vector field that counts its evaluations."""

    def __init__(self, field: FlatField) -> None:
        self.field: Callable[[Tensor, Tensor], Tensor] = field
        self.calls = 0

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return self.field(t, y)
