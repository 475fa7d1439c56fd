"""One step of each solver; never a loop."""

from ude.methods.catalogue import BS3, RK4, Dopri5, Dopri8, Euler, Heun, Midpoint, Ralston, Tsit5, Vern7
from ude.methods.explicit import ExplicitRungeKutta
from ude.methods.method import Carry, Method, StepResult
from ude.methods.tableau import Tableau
from ude.methods.taylor import Taylor

EXPLICIT = (Euler(), Heun(), Midpoint(), Ralston(), BS3(), RK4(), Dopri5(), Tsit5(), Vern7(), Dopri8())
"""One instance of every explicit method, by order."""

__all__ = [
    "BS3",
    "EXPLICIT",
    "RK4",
    "Carry",
    "Dopri5",
    "Dopri8",
    "Euler",
    "ExplicitRungeKutta",
    "Heun",
    "Method",
    "Midpoint",
    "Ralston",
    "StepResult",
    "Tableau",
    "Taylor",
    "Tsit5",
    "Vern7",
]
