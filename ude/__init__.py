"""Universal differential equations in PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ude._version import __version__
from ude.fit import LBFGS, Adam, Collocation, Fit, InitialStates, MultipleShooting, SingleShooting, SolverOptions, fit
from ude.models import MLP, UDE, EquationSystem, Expression, Parameter, Signal, Term, parse_equations
from ude.problems import ODEProblem, Solution, SolveError
from ude.solve import PI, PID, Checkpointed, Compiled, Direct, Eager, FixedStep, I, SciPy, TorchDiffEq, solve

if TYPE_CHECKING:
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

_LAZY = {
    "ude.report": ("load",),
    "ude.datasets": ("read_csv",),
    "ude.discovery": (
        "Discovery",
        "Search",
        "discover",
        "SR3",
        "STLSQ",
        "Custom",
        "ForwardSelection",
        "Fourier",
        "Polynomial",
        "Rational",
        "SINDy",
    ),
}
"""Names looked up at first use, by module: `import ude` loads no more than a solve needs."""

__all__ = [
    "LBFGS",
    "MLP",
    "PI",
    "PID",
    "SR3",
    "STLSQ",
    "UDE",
    "Adam",
    "Checkpointed",
    "Collocation",
    "Compiled",
    "Custom",
    "Direct",
    "Discovery",
    "Eager",
    "EquationSystem",
    "Expression",
    "Fit",
    "FixedStep",
    "ForwardSelection",
    "Fourier",
    "I",
    "InitialStates",
    "MultipleShooting",
    "ODEProblem",
    "Parameter",
    "Polynomial",
    "Rational",
    "SINDy",
    "SciPy",
    "Search",
    "Signal",
    "SingleShooting",
    "Solution",
    "SolveError",
    "SolverOptions",
    "Term",
    "TorchDiffEq",
    "__version__",
    "discover",
    "fit",
    "load",
    "parse_equations",
    "read_csv",
    "solve",
]


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'ude' has no attribute {name!r}")
