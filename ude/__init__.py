"""Universal differential equations in PyTorch.

Write down the part of a differential equation you know, let a network stand for the rest, fit both to data, and read
the missing term back as an equation.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ude import ad, methods, nonlinear, problems
from ude._version import __version__
from ude.fit import LBFGS, Adam, Collocation, Fit, InitialStates, MultipleShooting, SingleShooting, SolverOptions, fit
from ude.methods import (
    BDF,
    BS3,
    ESDIRK,
    RK4,
    TRBDF2,
    AutoSwitch,
    DiagonalTableau,
    Dopri5,
    Dopri8,
    Euler,
    ExplicitRungeKutta,
    Heun,
    KenCarp3,
    KenCarp4,
    Kvaerno3,
    Kvaerno4,
    Kvaerno5,
    Midpoint,
    RadauIIA5,
    Ralston,
    Rodas4,
    Rodas5P,
    Rosenbrock,
    Rosenbrock23,
    RosenbrockTableau,
    Tableau,
    Taylor,
    Tsit5,
    Vern7,
)
from ude.models import MLP, UDE, EquationSystem, Expression, Parameter, Signal, Term, parse_equations
from ude.nonlinear import GMRES, LU, Newton
from ude.problems import (
    EnsembleProblem,
    EventLog,
    ODEProblem,
    Solution,
    SolveError,
    Stats,
    Status,
    SteadyStateProblem,
    SteadyStateSolution,
    Steps,
    Trajectories,
)
from ude.solve import (
    PI,
    PID,
    Auto,
    Backsolve,
    Checkpointed,
    Compiled,
    ContinuousEvent,
    Direct,
    DiscreteEvent,
    Eager,
    FixedStep,
    Forward,
    Gauss,
    I,
    Interpolating,
    Loop,
    ManifoldProjection,
    Periodic,
    PositiveDomain,
    PresetTimes,
    SciPy,
    SteadyState,
    TorchDiffEq,
    solve,
    solve_steady_state,
)

if TYPE_CHECKING:
    from ude import compat, datasets, plot, systems
    from ude.datasets import read_csv
    from ude.discovery import (
        SR3,
        STLSQ,
        Custom,
        Discovery,
        ForwardSelection,
        Fourier,
        Polynomial,
        Rational,
        Search,
        SINDy,
        discover,
    )
    from ude.report import load

__all__ = [
    "BDF",
    "BS3",
    "ESDIRK",
    "GMRES",
    "LBFGS",
    "LU",
    "MLP",
    "PI",
    "PID",
    "RK4",
    "SR3",
    "STLSQ",
    "TRBDF2",
    "UDE",
    "Adam",
    "Auto",
    "AutoSwitch",
    "Backsolve",
    "Checkpointed",
    "Collocation",
    "Compiled",
    "ContinuousEvent",
    "Custom",
    "DiagonalTableau",
    "Direct",
    "Discovery",
    "DiscreteEvent",
    "Dopri5",
    "Dopri8",
    "Eager",
    "EnsembleProblem",
    "EquationSystem",
    "Euler",
    "EventLog",
    "ExplicitRungeKutta",
    "Expression",
    "Fit",
    "FixedStep",
    "Forward",
    "ForwardSelection",
    "Fourier",
    "Gauss",
    "Heun",
    "I",
    "InitialStates",
    "Interpolating",
    "KenCarp3",
    "KenCarp4",
    "Kvaerno3",
    "Kvaerno4",
    "Kvaerno5",
    "Loop",
    "ManifoldProjection",
    "Midpoint",
    "MultipleShooting",
    "Newton",
    "ODEProblem",
    "Parameter",
    "Periodic",
    "Polynomial",
    "PositiveDomain",
    "PresetTimes",
    "RadauIIA5",
    "Ralston",
    "Rational",
    "Rodas4",
    "Rodas5P",
    "Rosenbrock",
    "Rosenbrock23",
    "RosenbrockTableau",
    "SINDy",
    "SciPy",
    "Search",
    "Signal",
    "SingleShooting",
    "Solution",
    "SolveError",
    "SolverOptions",
    "Stats",
    "Status",
    "SteadyState",
    "SteadyStateProblem",
    "SteadyStateSolution",
    "Steps",
    "Tableau",
    "Taylor",
    "Term",
    "TorchDiffEq",
    "Trajectories",
    "Tsit5",
    "Vern7",
    "__version__",
    "ad",
    "compat",
    "datasets",
    "discover",
    "fit",
    "load",
    "methods",
    "nonlinear",
    "parse_equations",
    "plot",
    "problems",
    "read_csv",
    "solve",
    "solve_steady_state",
    "systems",
]

_LAZY = {
    "ude.datasets": {"read_csv"},
    "ude.report": {"load"},
    "ude.discovery": {
        "SR3",
        "STLSQ",
        "Custom",
        "Discovery",
        "ForwardSelection",
        "Fourier",
        "Polynomial",
        "Rational",
        "SINDy",
        "Search",
        "discover",
    },
}
"""Names looked up at first use, by module: `import ude` loads no more than a solve and a fit need."""

_LAZY_ROOMS = {"compat", "datasets", "plot", "systems"}


def __getattr__(name: str) -> Any:
    if name in _LAZY_ROOMS:
        return importlib.import_module(f"ude.{name}")
    for module, names in _LAZY.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'ude' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
