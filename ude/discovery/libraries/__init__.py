"""Candidate functions for sparse regression: torch functions with names and symbols, which add and multiply."""

from ude.discovery.libraries.custom import Custom
from ude.discovery.libraries.fourier import Fourier
from ude.discovery.libraries.from_pysindy import FromPySINDy, as_library
from ude.discovery.libraries.library import Library, On, Product, Sum
from ude.discovery.libraries.polynomial import Polynomial
from ude.discovery.libraries.rational import Rational

__all__ = [
    "Custom",
    "Fourier",
    "FromPySINDy",
    "Library",
    "On",
    "Polynomial",
    "Product",
    "Rational",
    "Sum",
    "as_library",
]
