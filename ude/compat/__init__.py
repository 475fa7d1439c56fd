"""torchdiffeq's and torchsde's call signatures over this library's solver: change the import, keep the program."""

from ude.compat.adjoint import odeint_adjoint
from ude.compat.door import odeint, odeint_dense
from ude.compat.errors import ArgumentError, OdeintError, SdeintError
from ude.compat.evaluations import Evaluations
from ude.compat.event import odeint_event
from ude.compat.regularized import Info
from ude.compat.stochastic import sdeint, sdeint_adjoint

__all__ = [
    "ArgumentError",
    "Evaluations",
    "Info",
    "OdeintError",
    "SdeintError",
    "odeint",
    "odeint_adjoint",
    "odeint_dense",
    "odeint_event",
    "sdeint",
    "sdeint_adjoint",
]
