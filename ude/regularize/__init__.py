"""Costs of a trajectory that make its dynamics easy to solve, their weights in the course of a training."""

from ude.regularize.anneal import Anneal
from ude.regularize.attach import attach
from ude.regularize.attached import Attached
from ude.regularize.energy import JacobianFrobenius, KineticEnergy, TaylorEnergy, TrajectoryIntegral
from ude.regularize.local import Local
from ude.regularize.penalty import Penalty
from ude.regularize.regularizer import Regularizer, Sum, Weighted
from ude.regularize.steer import Steer
from ude.regularize.steps import ErrorEstimate, StiffnessEstimate

__all__ = [
    "Anneal",
    "Attached",
    "ErrorEstimate",
    "JacobianFrobenius",
    "KineticEnergy",
    "Local",
    "Penalty",
    "Regularizer",
    "Steer",
    "StiffnessEstimate",
    "Sum",
    "TaylorEnergy",
    "TrajectoryIntegral",
    "Weighted",
    "attach",
]
