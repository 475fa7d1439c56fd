"""Modules with parameters: universal differential equations and their parts, neural differential equations."""

from ude.models.augment import Augment
from ude.models.cnf import CNF, Flow, FlowState
from ude.models.coordinates import LatentField, LogCoordinates
from ude.models.equations import EquationSystem, UnknownTerm, parse_equations, parse_expression, parse_parameter
from ude.models.expression import Expression
from ude.models.fields import Autonomous, DenseField, SecondOrder
from ude.models.gru_encoder import GRUEncoder
from ude.models.hypersolver import Hypersolver, ResidualNetwork
from ude.models.integrator import Integrator
from ude.models.latent_ode import LatentODE, Reconstruction, elbo, squared_error
from ude.models.latent_sde import ContextEncoder, LatentSDE, SeparateDiffusion, StochasticReconstruction, path_elbo
from ude.models.mlp import MLP
from ude.models.neural_ode import NeuralODE
from ude.models.neural_sde import NeuralSDE
from ude.models.parameters import Parameter, Parameters, Values
from ude.models.posterior import Posterior
from ude.models.replicated import Replicated, member, replicate
from ude.models.signal import Signal
from ude.models.term import Term
from ude.models.ude import UDE

__all__ = [
    "CNF",
    "MLP",
    "UDE",
    "Augment",
    "Autonomous",
    "ContextEncoder",
    "DenseField",
    "EquationSystem",
    "Expression",
    "Flow",
    "FlowState",
    "GRUEncoder",
    "Hypersolver",
    "Integrator",
    "LatentField",
    "LatentODE",
    "LatentSDE",
    "LogCoordinates",
    "NeuralODE",
    "NeuralSDE",
    "Parameter",
    "Parameters",
    "Posterior",
    "Reconstruction",
    "Replicated",
    "ResidualNetwork",
    "SecondOrder",
    "SeparateDiffusion",
    "Signal",
    "StochasticReconstruction",
    "Term",
    "UnknownTerm",
    "Values",
    "elbo",
    "member",
    "parse_equations",
    "parse_expression",
    "parse_parameter",
    "path_elbo",
    "replicate",
    "squared_error",
]
