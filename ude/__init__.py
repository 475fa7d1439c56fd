"""Universal differential equations in PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ude._version import __version__
from ude.models import MLP, UDE, Parameter, Signal, Term
from ude.problems import ODEProblem, Solution, SolveError
from ude.solve import PI, PID, Checkpointed, Direct, Eager, FixedStep, I, solve

if TYPE_CHECKING:
    from ude.discovery import STLSQ, Custom, ForwardSelection, Fourier, Polynomial, Rational

_LAZY = {
    "ude.discovery": ("STLSQ", "Custom", "ForwardSelection", "Fourier", "Polynomial", "Rational"),
}
"""Names looked up at first use, by module: `import ude` loads no more than a solve needs."""

__all__ = [
    "MLP",
    "PI",
    "PID",
    "STLSQ",
    "UDE",
    "Checkpointed",
    "Custom",
    "Direct",
    "Eager",
    "FixedStep",
    "ForwardSelection",
    "Fourier",
    "I",
    "ODEProblem",
    "Parameter",
    "Polynomial",
    "Rational",
    "Signal",
    "Solution",
    "SolveError",
    "Term",
    "__version__",
    "solve",
]


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'ude' has no attribute {name!r}")
