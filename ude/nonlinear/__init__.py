"""Solvers of equations: linear systems, dense and matrix-free."""

from ude.nonlinear.gmres import GMRES
from ude.nonlinear.linear import LU, LinearSolver, LinearSystem

__all__ = ["GMRES", "LU", "LinearSolver", "LinearSystem"]
