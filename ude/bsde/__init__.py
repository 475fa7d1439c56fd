"""Semilinear parabolic equations in hundreds of dimensions, by backward stochastic differential equations."""

from ude.bsde.check import SolutionCheck, check_solution, residual_terms
from ude.bsde.deep_bsde import DeepBSDE
from ude.bsde.deep_splitting import DeepSplitting
from ude.bsde.door import PDESolution, TrainingInterrupted, solve
from ude.bsde.equation import Diffusion, SemilinearPDE
from ude.bsde.forward_backward import ForwardBackward
from ude.bsde.networks import Network
from ude.bsde.paths import BySolver, EqualSteps, Paths
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
from ude.bsde.training import Cosine, Exponential, History, Training, TrainingError

__all__ = [
    "BenchmarkEquation",
    "BySolver",
    "Cosine",
    "DeepBSDE",
    "DeepSplitting",
    "Diffusion",
    "EqualSteps",
    "Exponential",
    "ForwardBackward",
    "History",
    "Network",
    "PDESolution",
    "Paths",
    "SemilinearPDE",
    "SolutionCheck",
    "Training",
    "TrainingError",
    "TrainingInterrupted",
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
    "solve",
    "suite",
]
