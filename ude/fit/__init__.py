"""Fit models to measurements."""

from ude.fit.adam import Adam
from ude.fit.checkpoint import Checkpoint
from ude.fit.collocation import Collocation
from ude.fit.door import Interrupted, fit
from ude.fit.initial_states import InitialStates
from ude.fit.lbfgs import LBFGS
from ude.fit.multiple_shooting import MultipleShooting
from ude.fit.options import SolverOptions
from ude.fit.result import Fit
from ude.fit.scaling import Scales
from ude.fit.single_shooting import SingleShooting
from ude.fit.smoothing import SmoothCurves, smooth
from ude.fit.training import History

__all__ = [
    "LBFGS",
    "Adam",
    "Checkpoint",
    "Collocation",
    "Fit",
    "History",
    "InitialStates",
    "Interrupted",
    "MultipleShooting",
    "Scales",
    "SingleShooting",
    "SmoothCurves",
    "SolverOptions",
    "fit",
    "smooth",
]
