"""Vector fields with parameters: universal differential equations and their parts."""

from ude.models.coordinates import LatentField, LogCoordinates
from ude.models.mlp import MLP
from ude.models.parameters import Parameter, Parameters, Values
from ude.models.replicated import Replicated, member, replicate
from ude.models.signal import Signal
from ude.models.term import Term
from ude.models.ude import UDE

__all__ = [
    "MLP",
    "UDE",
    "LatentField",
    "LogCoordinates",
    "Parameter",
    "Parameters",
    "Replicated",
    "Signal",
    "Term",
    "Values",
    "member",
    "replicate",
]
