"""From data or a fitted network to an equation: libraries, sparse regression and the choice among models."""

from ude.discovery.forward import ForwardSelection
from ude.discovery.libraries import Custom, Fourier, Library, Polynomial, Rational, as_library
from ude.discovery.sparse_fit import SparseFit
from ude.discovery.stlsq import STLSQ

__all__ = [
    "STLSQ",
    "Custom",
    "ForwardSelection",
    "Fourier",
    "Library",
    "Polynomial",
    "Rational",
    "SparseFit",
    "as_library",
]
