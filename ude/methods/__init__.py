"""One step of each solver; never a loop."""

from ude.methods.catalogue import BS3, RK4, Dopri5, Euler, Heun, Midpoint, Ralston, Tsit5
from ude.methods.explicit import ExplicitRungeKutta
from ude.methods.method import Carry, Method, StepResult
from ude.methods.tableau import Tableau

EXPLICIT = (Euler(), Heun(), Midpoint(), Ralston(), BS3(), RK4(), Dopri5(), Tsit5())
"""One instance of every explicit method, by order."""

__all__ = [
    "BS3",
    "EXPLICIT",
    "RK4",
    "Carry",
    "Dopri5",
    "Euler",
    "ExplicitRungeKutta",
    "Heun",
    "Method",
    "Midpoint",
    "Ralston",
    "StepResult",
    "Tableau",
    "Tsit5",
]
