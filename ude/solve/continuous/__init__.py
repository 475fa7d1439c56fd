"""Continuous adjoints: gradients by differential equations of their own."""

from ude.solve.continuous.adjoint import Backsolve, ContinuousAdjoint, Forward, Gauss, Interpolating
from ude.solve.continuous.gradient import differentiable_states

__all__ = ["Backsolve", "ContinuousAdjoint", "Forward", "Gauss", "Interpolating", "differentiable_states"]
