"""How the equations are integrated during a fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ude.methods.method import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverOptions:
    """How the equations are integrated while they are fitted.

    Constant steps are the default: every replicate then takes the same steps whatever the others do, the loss is
    a smooth function of the parameters, and a wild network at the start cannot make the solve endless. At the
    end of a fit the result is checked against steps of half the length, and fitted further where these differ.

    Args:
        method: Solver; `Tsit5()` if not given.
        dt: Length of the constant steps; half the time scale of the data if not given.
        is_adaptive: Choose the steps by `rtol` and `atol` instead.
        rtol: Relative tolerance of an adaptive solve.
        atol: Absolute tolerance of an adaptive solve, in units of each state's scale.
        engine: "eager", "compiled", or "auto": compiled when so many solves are planned that compiling, which
            takes about half a minute, pays.
        max_steps: Most steps of one solve.
        halvings: After the fit, constant steps are halved up to so many times, each time followed by a few
            more iterations, while the solver's error is not small against the residuals; 0 leaves out the check.
    """

    method: Method | None = None
    dt: float | None = None
    is_adaptive: bool = False
    rtol: float = 1e-6
    atol: float = 1e-8
    engine: Literal["auto", "eager", "compiled"] = "auto"
    max_steps: int = 10_000
    halvings: int = 3
