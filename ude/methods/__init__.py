"""One step of each solver; never a loop."""

from ude.methods.catalogue import BS3, RK4, Dopri5, Dopri8, Euler, Heun, Midpoint, Ralston, Tsit5, Vern7
from ude.methods.explicit import ExplicitRungeKutta
from ude.methods.method import Carry, Method, StepResult
from ude.methods.rosenbrock import Rodas4, Rodas5P, Rosenbrock, Rosenbrock23
from ude.methods.rosenbrock_tableau import RosenbrockTableau
from ude.methods.tableau import Tableau
from ude.methods.taylor import Taylor

EXPLICIT = (Euler(), Heun(), Midpoint(), Ralston(), BS3(), RK4(), Dopri5(), Tsit5(), Vern7(), Dopri8())
"""One instance of every explicit method, by order."""

ROSENBROCK = (Rosenbrock23(), Rodas4(), Rodas5P())
"""One instance of every Rosenbrock method, by order."""

__all__ = [
    "BS3",
    "EXPLICIT",
    "RK4",
    "ROSENBROCK",
    "Carry",
    "Dopri5",
    "Dopri8",
    "Euler",
    "ExplicitRungeKutta",
    "Heun",
    "Method",
    "Midpoint",
    "Ralston",
    "Rodas4",
    "Rodas5P",
    "Rosenbrock",
    "Rosenbrock23",
    "RosenbrockTableau",
    "StepResult",
    "Tableau",
    "Taylor",
    "Tsit5",
    "Vern7",
]
