"""What to tell the user when a solve fails."""

from __future__ import annotations

import torch

from ude.problems import Problem, Solution, SolveError, Status

CAUSES = {
    Status.MAX_STEPS: "it used up `max_steps`",
    Status.STEP_TOO_SMALL: "the step became too small for the precision of the time",
    Status.NON_FINITE: "the state or the vector field is infinite or NaN, however short the step",
    Status.BACKEND_FAILED: "the backend gave up",
    Status.EVENTS_STALLED: "events followed one another without progress in time",
}
REMEDIES = {
    Status.MAX_STEPS: "Raise `max_steps` or loosen `rtol` and `atol`.",
    Status.STEP_TOO_SMALL: (
        "The solution may have a singularity there, or the vector field a jump: end `t_span` before it, loosen `rtol` "
        "and `atol`, or compute in double precision. For steps of an `SDEProblem` below 16 of the finest cells of its "
        "path take a deeper one: `BrownianTree(seed, depth=...)`."
    ),
    Status.NON_FINITE: (
        "Look for a division by zero, a root or logarithm of a negative number, or a growth without bound; shorten "
        "`t_span`, or scale the outputs of a network that was just initialised. With `PositiveDomain`, the vector "
        "field may lead out of the domain."
    ),
    Status.BACKEND_FAILED: "Try a method of this library, or other tolerances.",
    Status.EVENTS_STALLED: (
        "Let an event with `terminate=True` end the solve before, such as one for a small velocity, or change `affect` "
        "so that the condition leaves zero."
    ),
}
STIFF = 1e3
"""Fastest rate times interval above which an explicit method is likely to be limited by stability."""


def raise_on_failure(solution: Solution, problem: Problem, reason: str) -> None:
    """Raise `SolveError` naming the first sample that failed, if any did."""
    if not bool(solution.status.any()):  # `Status.SUCCESS` is zero
        return
    status = torch.atleast_1d(solution.status)
    failed = (~torch.atleast_1d(solution.success)).nonzero().squeeze(-1).tolist()
    if not failed:
        return
    sample, kind = failed[0], Status(int(status[failed[0]]))
    who = f"sample {sample} of {len(status)}" if problem.batched else "the solve"
    others = f" {len(failed) - 1} other sample(s) failed as well." if len(failed) > 1 else ""
    where, stiff = ("", "") if kind == Status.BACKEND_FAILED else _where(solution, sample, problem)
    cause = f"{CAUSES[kind]} ({reason})" if reason else CAUSES[kind]
    message = f"{who} stopped{where}: {cause}. {REMEDIES[kind]}{stiff}{others}"
    raise SolveError(message[0].upper() + message[1:], solution)


def _where(solution: Solution, sample: int, problem: Problem) -> tuple[str, str]:
    """Describe the last attempt of a sample, and what its stiffness suggests."""
    columns = {
        name: x.detach() if x.ndim == 2 else x.detach().unsqueeze(-1)
        for name, x in zip(solution.steps.__slots__, _fields(solution), strict=True)
    }
    tried = columns["dt"][:, sample].nonzero().squeeze(-1)
    if not len(tried):
        return " before its first step", ""
    last = {name: float(x[int(tried[-1]), sample]) for name, x in columns.items()}
    t = last["t"] + last["dt"] * last["accepted"]
    where = (
        f" at t = {t:.6g} with step {last['dt']:.3g}, error ratio {last['error']:.3g}, "
        f"stiffness {last['stiffness']:.3g} per unit of time"
    )
    t0, t1 = (float(torch.as_tensor(x).detach().expand(sample + 1)[sample]) for x in problem.t_span)
    ratio = last["stiffness"] * abs(t1 - t0)
    if not STIFF <= ratio < float("inf"):
        return where, ""
    return where, f" The problem looks stiff (fastest rate times interval about {ratio:.0e}): try `Rodas5P()`."


def _fields(solution: Solution) -> list[torch.Tensor]:
    return [getattr(solution.steps, name) for name in solution.steps.__slots__]
