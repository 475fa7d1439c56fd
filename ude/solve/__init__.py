"""The door `solve`, the one loop, step control, saving, gradients and engines."""

from ude.solve.adjoints import Checkpointed, Direct
from ude.solve.backends import SciPy, TorchDiffEq, TorchDiffEqOptions
from ude.solve.compiled import Compiled
from ude.solve.controllers import PI, PID, FixedStep, I
from ude.solve.door import solve
from ude.solve.engines import Eager

__all__ = [
    "PI",
    "PID",
    "Checkpointed",
    "Compiled",
    "Direct",
    "Eager",
    "FixedStep",
    "I",
    "SciPy",
    "TorchDiffEq",
    "TorchDiffEqOptions",
    "solve",
]
