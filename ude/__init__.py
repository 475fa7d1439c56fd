"""Universal differential equations in PyTorch."""

from ude._version import __version__
from ude.models import MLP, UDE, Parameter, Term

__all__ = ["MLP", "UDE", "Parameter", "Term", "__version__"]
