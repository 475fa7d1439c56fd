"""From data or a fitted network to an equation: libraries, sparse regression and the choice among models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ude.discovery.differentiation import FiniteDifference, SavitzkyGolay, SmoothingSpline
from ude.discovery.door import discover
from ude.discovery.forward import ForwardSelection
from ude.discovery.libraries import Custom, Fourier, Library, Polynomial, Rational, as_library
from ude.discovery.result import Candidate, Discovery, Estimate, RecoveredTerm
from ude.discovery.selection import Search
from ude.discovery.sparse_fit import SparseFit
from ude.discovery.sr3 import SR3
from ude.discovery.stlsq import STLSQ

if TYPE_CHECKING:
    from ude.discovery.sindy import SINDy

_LAZY = {"SINDy": "ude.discovery.sindy"}
"""Names that need scikit-learn, looked up at first use."""

__all__ = [
    "SR3",
    "STLSQ",
    "Candidate",
    "Custom",
    "Discovery",
    "Estimate",
    "FiniteDifference",
    "ForwardSelection",
    "Fourier",
    "Library",
    "Polynomial",
    "Rational",
    "RecoveredTerm",
    "SINDy",
    "SavitzkyGolay",
    "Search",
    "SmoothingSpline",
    "SparseFit",
    "as_library",
    "discover",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ude.discovery' has no attribute {name!r}")
