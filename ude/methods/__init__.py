"""One step of each solver; never a loop."""

from ude.methods.auto_switch import AutoSwitch
from ude.methods.bdf import BDF
from ude.methods.catalogue import BS3, RK4, Dopri5, Dopri8, Euler, Heun, Midpoint, Ralston, Tsit5, Vern7
from ude.methods.classical_stochastic import (
    EulerHeun,
    EulerMaruyama,
    LambaEM,
    Milstein,
    ReversibleHeun,
    StratonovichHeun,
    StratonovichMidpoint,
)
from ude.methods.diagonal_tableau import DiagonalTableau
from ude.methods.esdirk import ESDIRK, TRBDF2, KenCarp3, KenCarp4, Kvaerno3, Kvaerno4, Kvaerno5
from ude.methods.explicit import ExplicitRungeKutta
from ude.methods.method import Carry, IteratingMethod, Method, StepResult, Tolerances
from ude.methods.radau import RadauIIA5
from ude.methods.rosenbrock import Rodas4, Rodas5P, Rosenbrock, Rosenbrock23
from ude.methods.rosenbrock_tableau import RosenbrockTableau
from ude.methods.sra import SOSRA, SOSRA2, SRA, SRA1, SRA3
from ude.methods.sri import SOSRI, SOSRI2, SRI, SRIW1
from ude.methods.stochastic import StochasticField
from ude.methods.stochastic_steps import StochasticMethod
from ude.methods.stochastic_tableau import SRATableau, SRITableau
from ude.methods.tableau import Tableau
from ude.methods.taylor import Taylor
from ude.methods.weak import RI1

EXPLICIT = (Euler(), Heun(), Midpoint(), Ralston(), BS3(), RK4(), Dopri5(), Tsit5(), Vern7(), Dopri8())
"""One instance of every explicit method, by order."""

ROSENBROCK = (Rosenbrock23(), Rodas4(), Rodas5P())
"""One instance of every Rosenbrock method, by order."""

ESDIRKS = (TRBDF2(), Kvaerno3(), KenCarp3(), Kvaerno4(), KenCarp4(), Kvaerno5())
"""One instance of every ESDIRK method, by order."""

__all__ = [
    "BDF",
    "BS3",
    "ESDIRK",
    "ESDIRKS",
    "EXPLICIT",
    "RI1",
    "RK4",
    "ROSENBROCK",
    "SOSRA",
    "SOSRA2",
    "SOSRI",
    "SOSRI2",
    "SRA",
    "SRA1",
    "SRA3",
    "SRI",
    "SRIW1",
    "TRBDF2",
    "AutoSwitch",
    "Carry",
    "DiagonalTableau",
    "Dopri5",
    "Dopri8",
    "Euler",
    "EulerHeun",
    "EulerMaruyama",
    "ExplicitRungeKutta",
    "Heun",
    "IteratingMethod",
    "KenCarp3",
    "KenCarp4",
    "Kvaerno3",
    "Kvaerno4",
    "Kvaerno5",
    "LambaEM",
    "Method",
    "Midpoint",
    "Milstein",
    "RadauIIA5",
    "Ralston",
    "ReversibleHeun",
    "Rodas4",
    "Rodas5P",
    "Rosenbrock",
    "Rosenbrock23",
    "RosenbrockTableau",
    "SRATableau",
    "SRITableau",
    "StepResult",
    "StochasticField",
    "StochasticMethod",
    "StratonovichHeun",
    "StratonovichMidpoint",
    "Tableau",
    "Taylor",
    "Tolerances",
    "Tsit5",
    "Vern7",
]
