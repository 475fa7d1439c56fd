"""The methods behind torchdiffeq's names."""

from __future__ import annotations

from dataclasses import replace

from ude.methods.catalogue import BS3, Dopri8, Euler, Heun, Midpoint, Tsit5
from ude.methods.coefficients.dopri5 import DOPRI5
from ude.methods.coefficients.fehlberg2 import FEHLBERG2
from ude.methods.coefficients.kutta import HEUN3, KUTTA38
from ude.methods.explicit import ExplicitRungeKutta

# torchdiffeq's dopri5 has the error estimate of Shampine (1986), Math. Comp. 46, 135-150: two thirds of that of Dormand
# and Prince, so that steps are 8 % longer at the same tolerance.
SHAMPINE = replace(DOPRI5, b_err=[2 / 3 * error for error in DOPRI5.b_err or ()])

ADAPTIVE: dict[str, ExplicitRungeKutta] = {
    "dopri8": Dopri8(),
    "dopri5": ExplicitRungeKutta(SHAMPINE),
    "tsit5": Tsit5(),
    "bosh3": BS3(),
    "fehlberg2": ExplicitRungeKutta(FEHLBERG2),
    "adaptive_heun": Heun(),
}
"""Steps of controlled length."""

FIXED: dict[str, ExplicitRungeKutta] = {
    "euler": Euler(),
    "midpoint": Midpoint(),
    "heun2": Heun(),
    "heun3": ExplicitRungeKutta(HEUN3),
    "rk4": ExplicitRungeKutta(KUTTA38),
}
"""Steps on a grid. `rk4` is the 3/8 rule there."""

ADAMS = ("explicit_adams", "implicit_adams", "fixed_adams")
"""Multistep methods on a grid, which torchdiffeq itself carries out."""

SCIPY = "scipy_solver"
"""A method of SciPy, by its name in `options["solver"]`; no gradient."""

NAMES = (*ADAPTIVE, *FIXED, *ADAMS, SCIPY)
