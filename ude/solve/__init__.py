"""The door `solve`, the one loop, step control, saving, gradients and engines."""

from ude.solve.adjoints import Checkpointed, Direct
from ude.solve.auto import Auto
from ude.solve.backends import SciPy, TorchDiffEq, TorchDiffEqOptions
from ude.solve.compiled import Compiled
from ude.solve.continuous import Backsolve, Forward, Gauss, Interpolating
from ude.solve.controllers import PI, PID, FixedStep, I
from ude.solve.door import solve
from ude.solve.engines import Eager
from ude.solve.events import (
    ContinuousEvent,
    DiscreteEvent,
    ManifoldProjection,
    Periodic,
    PositiveDomain,
    PresetTimes,
    SteadyState,
)
from ude.solve.loop import Loop
from ude.solve.steady_state import solve_steady_state
from ude.solve.torchsde_backend import TorchSDE

__all__ = [
    "PI",
    "PID",
    "Auto",
    "Backsolve",
    "Checkpointed",
    "Compiled",
    "ContinuousEvent",
    "Direct",
    "DiscreteEvent",
    "Eager",
    "FixedStep",
    "Forward",
    "Gauss",
    "I",
    "Interpolating",
    "Loop",
    "ManifoldProjection",
    "Periodic",
    "PositiveDomain",
    "PresetTimes",
    "SciPy",
    "SteadyState",
    "TorchDiffEq",
    "TorchDiffEqOptions",
    "TorchSDE",
    "solve",
    "solve_steady_state",
]
