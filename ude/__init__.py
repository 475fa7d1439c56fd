"""Universal differential equations in PyTorch."""

from ude._version import __version__

__all__ = ["__version__"]
