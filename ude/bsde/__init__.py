"""Semilinear parabolic equations in hundreds of dimensions, by backward stochastic differential equations."""

from ude.bsde.check import SolutionCheck, check_solution, residual_terms
from ude.bsde.equation import Diffusion, SemilinearPDE
from ude.bsde.suite import (
    BenchmarkEquation,
    allen_cahn,
    black_scholes_barenblatt,
    burgers_type,
    default_risk,
    different_rates,
    hamilton_jacobi_bellman,
    quadratic_gradient,
    reaction_diffusion,
    suite,
)

__all__ = [
    "BenchmarkEquation",
    "Diffusion",
    "SemilinearPDE",
    "SolutionCheck",
    "allen_cahn",
    "black_scholes_barenblatt",
    "burgers_type",
    "check_solution",
    "default_risk",
    "different_rates",
    "hamilton_jacobi_bellman",
    "quadratic_gradient",
    "reaction_diffusion",
    "residual_terms",
    "suite",
]
