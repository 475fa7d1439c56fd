"""Reference problems with exact solutions, and measurements small enough to carry along."""

from ude.systems.hudson_bay import HUDSON_BAY_CITATION, hudson_bay, hudson_bay_csv
from ude.systems.odes import (
    ARENSTORF_PERIOD,
    arenstorf,
    damped_cubic,
    fitzhugh_nagumo,
    harmonic_oscillator,
    harmonic_oscillator_solution,
    logistic,
    logistic_solution,
    lorenz,
    lotka_volterra,
    lotka_volterra_paper,
    oscillating_growth,
    oscillating_growth_solution,
    van_der_pol,
)
from ude.systems.seir import SEIR_STATES, SEIRParameters, seir, seir_exposure

__all__ = [
    "ARENSTORF_PERIOD",
    "HUDSON_BAY_CITATION",
    "SEIR_STATES",
    "SEIRParameters",
    "arenstorf",
    "damped_cubic",
    "fitzhugh_nagumo",
    "harmonic_oscillator",
    "harmonic_oscillator_solution",
    "hudson_bay",
    "hudson_bay_csv",
    "logistic",
    "logistic_solution",
    "lorenz",
    "lotka_volterra",
    "lotka_volterra_paper",
    "oscillating_growth",
    "oscillating_growth_solution",
    "seir",
    "seir_exposure",
    "van_der_pol",
]
