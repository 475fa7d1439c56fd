"""Universal differential equations in PyTorch."""

from ude._version import __version__
from ude.models import MLP, UDE, Parameter, Signal, Term

__all__ = ["MLP", "UDE", "Parameter", "Signal", "Term", "__version__"]
