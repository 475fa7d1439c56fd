"""Solvers of equations: linear systems, dense and matrix-free, and Newton's method."""

from ude.nonlinear.gmres import GMRES
from ude.nonlinear.linear import LU, LinearSolver, LinearSystem
from ude.nonlinear.newton import Newton, Root, attach_root

__all__ = ["GMRES", "LU", "LinearSolver", "LinearSystem", "Newton", "Root", "attach_root"]
