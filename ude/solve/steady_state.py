"""States at rest, and their derivatives by the implicit function theorem."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ude import ad
from ude._checks import positive
from ude.methods import Rodas5P
from ude.methods.method import Method
from ude.nonlinear import attach_root
from ude.problems import ODEProblem, SolveError, SteadyStateProblem, SteadyStateSolution
from ude.solve.door import solve
from ude.solve.events import SteadyState
from ude.solve.flatten import BoundField, Layout

POLISH = 5
"""Steps of Newton's method after the transient, at most."""


def solve_steady_state(
    problem: SteadyStateProblem,
    method: Method | None = None,
    *,
    rtol: float = 1e-8,
    atol: float = 1e-10,
    max_time: float = 1e8,
    max_steps: int = 10_000,
    throw: bool = True,
) -> SteadyStateSolution:
    r"""Find where the vector field vanishes, $f(y^*, p) = 0$, at the end of the trajectory that begins at `y0`.

    The equation is solved in time by a stiff method, whose steps grow as the state comes to rest, until
    `|f_i| <= atol + rtol |y_i|` in the root mean square; Newton's method brings that down to rounding. Starting from a
    trajectory means that a stable state is found, the one whose basin `y0` lies in.

    The gradient is that of the implicit function theorem, $dy^* = -f_y^{-1} f_p\, dp$, one transposed linear solve; it
    does not depend on how the state was found. The derivative by `y0` is zero, and not recorded.

    Args:
        problem: What is to come to rest.
        method: Solves in time; `Rodas5P()` if None.
        rtol: Relative tolerance of the residual, in 1/time.
        atol: Absolute tolerance of the residual, in the unit of the state over time.
        max_time: Time after which a sample that still moves has failed.
        max_steps: Most steps in time.
        throw: Raise if a sample does not come to rest.

    Raises:
        ValueError: If an argument cannot be used.
        SolveError: If a sample does not come to rest and `throw` is set. It carries the transient.

    Example:
        >>> import torch
        >>> p = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        >>> square = SteadyStateProblem(lambda t, y, p: p - y**2, torch.ones(1, dtype=torch.float64), p=p)
        >>> y = solve_steady_state(square).y
        >>> y.detach(), torch.autograd.grad(y.sum(), p)
        (tensor([1.4142], dtype=torch.float64), (tensor(0.3536, dtype=torch.float64),))
    """
    for name, value in (("rtol", rtol), ("atol", atol), ("max_time", max_time)):
        positive(name, value)
    layout = Layout.of(problem.y0, batched=problem.batched, jacobian=problem.jacobian)
    field = layout.bind(problem.vector_field, problem.p)
    with torch.no_grad():
        transient = solve(
            ODEProblem(
                problem.vector_field,
                problem.y0,
                (problem.t, problem.t + max_time),
                p=problem.p,
                batched=problem.batched,
                jacobian=problem.jacobian,
            ),
            Rodas5P() if method is None else method,
            events=[SteadyState(rtol=rtol, atol=atol)],
            rtol=1e-6,
            atol=1e-9,
            max_steps=max_steps,
            dense=False,
            throw=False,
        )
        y = layout.flatten(transient.ys, lead=1)[-1]
        t = torch.full((len(y),), problem.t, dtype=y.dtype, device=y.device)
        y, residual = _polished(field, t, y, rtol, atol)
    success = residual <= 1.0
    if throw and not bool(success.all()):
        sample = int((~success).nonzero()[0])
        raise SolveError(
            f"Sample {sample} did not come to rest by t = {problem.t + max_time:g} or within {max_steps} steps: |f| is "
            f"still {float(residual[sample]):.3g} times its tolerance. It may oscillate or grow without bound; look at "
            "`solve(ODEProblem(...))`, raise `max_time`, or loosen `rtol` and `atol`.",
            transient,
        )
    root = attach_root(y, lambda z: field(t, z), lambda w: _transposed(field, t, y, w))
    column = (lambda x: x) if layout.batched else (lambda x: x[0])
    return SteadyStateSolution(
        y=layout.unflatten(root), residual=column(residual), nfe=transient.stats.nfe, success=column(success)
    )


def _polished(field: BoundField, t: Tensor, y: Tensor, rtol: float, atol: float) -> tuple[Tensor, Tensor]:
    """Return the state after steps of Newton's method as long as they help, and its residual."""
    value = field(t, y)
    residual = _size(value, y, rtol, atol)
    for _ in range(POLISH):
        # Down to rounding where that is cheap: the gradient is that of the exact root.
        jacobian = cast(Tensor, ad.linearise(field, t, y, rate=False).jacobian)
        solution, _ = torch.linalg.solve_ex(jacobian, value)
        trial = y - solution
        new_value = field(t, trial)
        new_residual = _size(new_value, trial, rtol, atol)
        better = new_residual < residual
        if not bool(better.any()):
            break
        y = torch.where(better.unsqueeze(-1), trial, y)
        value = torch.where(better.unsqueeze(-1), new_value, value)
        residual = torch.where(better, new_residual, residual)
    return y, torch.nan_to_num(residual, nan=torch.inf)


def _size(value: Tensor, y: Tensor, rtol: float, atol: float) -> Tensor:
    return (value / (atol + rtol * y.abs())).square().mean(-1).sqrt()


def _transposed(field: BoundField, t: Tensor, y: Tensor, w: Tensor) -> Tensor:
    jacobian = cast(Tensor, ad.linearise(field, t, y, rate=False).jacobian)
    solution, info = torch.linalg.solve_ex(jacobian.mT, w)
    if bool((info != 0).any()):
        raise ValueError(
            "The Jacobian at the steady state is singular, so that the state has no derivative by the parameters: it "
            "depends on `y0` as well, as with a conserved quantity. Eliminate a component by the conservation law."
        )
    return solution
