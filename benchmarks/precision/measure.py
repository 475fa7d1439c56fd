"""Errors and work of all methods on one problem."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

import ude
from benchmarks.precision.problems import PROBLEMS, Problem
from benchmarks.speed import jax_peers

REPEATS = 3
LONG = 4.0
"""Seconds after which a method goes on to no tighter tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run; the time is the median of several."""

    problem: str
    is_stiff: bool
    method: str
    library: str
    rtol: float
    error: float
    evaluations: int | None
    jacobians: int | None
    steps: int | None
    seconds: float

    def row(self) -> str:
        counts = ["-" if n is None else f"{n}" for n in (self.evaluations, self.jacobians, self.steps)]
        return (
            f"| {self.problem} | {self.method} | {self.library} | {self.rtol:.0e} | {self.error:.1e} | "
            f"{' | '.join(counts)} | {self.seconds * 1e3:.3g} |"
        )


def measure(problem: Problem, *, smoke: bool) -> list[Point]:
    """Return one point for every method and tolerance; a method that took long stops at the next tolerance."""
    reference = _reference(problem)
    size = np.abs(reference).max(1)
    tolerances = [1e-5] if smoke else [10.0**-k for k in range(3, 10 if problem.is_stiff else 11)]
    points = []
    for method, library, run in [*_methods(problem, smoke=smoke), *_scipy_methods(problem), *_diffrax_methods(problem)]:
        for rtol in tolerances:
            end, counts, seconds = _timed(partial(run, rtol), 1 if smoke else REPEATS)
            error = float(np.sqrt(np.mean(((end - reference[:, -1]) / size) ** 2))) if end is not None else float("nan")
            points.append(
                Point(
                    problem=problem.name,
                    is_stiff=problem.is_stiff,
                    method=method,
                    library=library,
                    rtol=rtol,
                    error=error,
                    evaluations=counts[0],
                    jacobians=counts[1],
                    steps=counts[2],
                    seconds=seconds,
                )
            )
            if seconds > LONG:
                break
    return points


Run = Callable[[float], tuple["np.ndarray | None", tuple["int | None", ...]]]
"""From a tolerance to the state at the end, None after a failure, and evaluations, Jacobians and steps."""


def _methods(problem: Problem, *, smoke: bool) -> list[tuple[str, str, Run]]:
    """Return our methods by engine; the smallest form goes without compiled steps, which take longest to make."""
    engines = STIFF if problem.is_stiff else NON_STIFF
    if smoke:
        engines = engines | {"compiled": ()}
    return [
        (str(method), "ude" if engine == "eager" else f"ude ({engine})", partial(_ours, problem, method, engine))
        for engine, methods in engines.items()
        for method in methods
    ]


def _scipy_methods(problem: Problem) -> list[tuple[str, str, Run]]:
    names = ("LSODA", "BDF", "Radau") if problem.is_stiff else ("RK45", "DOP853", "LSODA")
    return [(name, "SciPy", partial(_scipy, problem, name)) for name in names]


NON_STIFF = {
    "eager": (ude.BS3(), ude.Tsit5(), ude.Vern7(), ude.Dopri8(), ude.Taylor(12)),
    "compiled": (ude.Tsit5(), ude.Vern7()),
    "loop": (ude.Tsit5(), ude.Vern7()),
}
STIFF = {
    "eager": (
        ude.Rosenbrock23(),
        ude.Rodas4(),
        ude.Rodas5P(),
        ude.TRBDF2(),
        ude.Kvaerno3(),
        ude.Kvaerno5(),
        ude.RadauIIA5(),
        ude.BDF(),
    ),
    "compiled": (ude.Rosenbrock23(), ude.Rodas5P()),
}


def _timed(run: Callable, repeats: int):
    """Return the result, the counts and the median time; the first run, which may compile, does not count."""
    seconds = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        end, counts = run()
        seconds.append(time.perf_counter() - began)
        if len(seconds) > 1 and sum(seconds[1:]) > LONG / 2:
            break
    return end, counts, statistics.median(seconds[1:])


def _atol(problem: Problem, rtol: float):
    return 1e-2 * rtol * np.array(problem.scales or [1.0] * len(problem.y0))


def _torch_field(problem: Problem):
    def field(t, y):
        return problem.field(torch, t, y)

    return field


FIELDS = {problem.name: _torch_field(problem) for problem in PROBLEMS}
"""One function each, since compiled steps are kept with the vector field."""


def _reference(problem: Problem):
    from scipy.integrate import solve_ivp

    return solve_ivp(
        lambda t, y: problem.field(np, t, y),
        (0.0, problem.t1),
        problem.y0,
        method=problem.reference,
        rtol=1e-13,
        atol=1e-3 * _atol(problem, 1e-10),
    ).y


def _ours(problem: Problem, method, engine: str, rtol: float):
    field = FIELDS[problem.name]
    with torch.no_grad():
        solution = ude.solve(
            ude.ODEProblem(field, torch.tensor(problem.y0, dtype=torch.float64), (0.0, problem.t1)),
            method,
            save_at=[problem.t1],
            rtol=rtol,
            atol=torch.as_tensor(_atol(problem, rtol)),
            dense=False,
            throw=False,
            engine=engine,
        )
    attempts = int(solution.stats.accepted + solution.stats.rejected)
    end = solution.ys[-1].numpy() if bool(solution.success) else None
    return end, (int(solution.stats.nfe), attempts if problem.is_stiff else None, attempts)


def _scipy(problem: Problem, name: str, rtol: float):
    from scipy.integrate import solve_ivp

    result = solve_ivp(
        lambda t, y: problem.field(np, t, y),
        (0.0, problem.t1),
        problem.y0,
        method=name,
        rtol=rtol,
        atol=_atol(problem, rtol),
    )
    return result.y[:, -1] if result.success else None, (result.nfev, result.njev or None, len(result.t) - 1)


def _diffrax_methods(problem: Problem) -> list[tuple[str, str, Run]]:
    """Return diffrax's solvers where it is installed."""
    try:
        import diffrax
    except ImportError:
        return []
    jax_peers.configured(torch.float64)
    solvers = (
        {"Kvaerno5": diffrax.Kvaerno5()}
        if problem.is_stiff
        else {
            "Tsit5": diffrax.Tsit5(),
            "Dopri8": diffrax.Dopri8(),
        }
    )
    return [(name, "diffrax (jit)", _diffrax_run(problem, solver)) for name, solver in solvers.items()]


def _diffrax_run(problem: Problem, solver) -> Run:
    import diffrax
    import jax
    import jax.numpy as jnp

    @jax.jit
    def solve(y0, rtol, atol):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, _: problem.field(jnp, t, y)),
            solver,
            0.0,
            problem.t1,
            None,
            y0,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            max_steps=200_000,
            throw=False,
        )

    def run(rtol: float):
        solution = solve(jnp.asarray(problem.y0), rtol, jnp.asarray(_atol(problem, rtol)))
        end = np.asarray(solution.ys[-1])
        success = bool(solution.result == diffrax.RESULTS.successful)
        return end if success else None, (None, None, int(solution.stats["num_steps"]))

    return run
