"""Universal differential equations in PyTorch."""

from ude._version import __version__
from ude.models import MLP, UDE, Parameter, Signal, Term
from ude.problems import ODEProblem, Solution, SolveError
from ude.solve import PI, PID, Checkpointed, Direct, Eager, FixedStep, I, solve

__all__ = [
    "MLP",
    "PI",
    "PID",
    "UDE",
    "Checkpointed",
    "Direct",
    "Eager",
    "FixedStep",
    "I",
    "ODEProblem",
    "Parameter",
    "Signal",
    "Solution",
    "SolveError",
    "Term",
    "__version__",
    "solve",
]
