"""What torchsde's names of methods stand for."""

from __future__ import annotations

from typing import Any

from ude.compat.errors import ArgumentError
from ude.compat.stochastic_equation import INTERPRETATIONS, NOISES, Equation
from ude.methods import (
    SRA1,
    SRIW1,
    EulerHeun,
    EulerMaruyama,
    LambaEM,
    Milstein,
    ReversibleHeun,
    StochasticMethod,
    StratonovichHeun,
    StratonovichMidpoint,
)
from ude.problems import Interpretation, Noise

SMALL: tuple[Noise, ...] = ("diagonal", "additive", "scalar")
METHODS: dict[str, tuple[tuple[Interpretation, ...], tuple[Noise, ...]]] = {
    "euler": (("ito",), NOISES),
    "milstein": (INTERPRETATIONS, SMALL),
    "srk": (("ito",), SMALL),
    "midpoint": (("stratonovich",), NOISES),
    "heun": (("stratonovich",), NOISES),
    "euler_heun": (("stratonovich",), NOISES),
    "reversible_heun": (("stratonovich",), NOISES),
    "log_ode": (("stratonovich",), NOISES),
}
"""The integrals and the kinds of noise that a method solves."""
BACKWARD = (*METHODS, "adjoint_reversible_heun")
"""Names of methods for torchsde's backward solve."""


def default_name(equation: Equation) -> str:
    """Return the name of the method that torchsde takes for an equation."""
    if equation.interpretation == "stratonovich":
        return "midpoint"
    return "euler" if equation.noise == "general" else "srk"


def read_method(method: Any, equation: Equation, *, adaptive: bool, grad_free: bool) -> StochasticMethod | None:
    """Return the method that a name stands for, or the one given; None if torchsde has to make the steps.

    Args:
        method: A name, or a method of this library.
        equation: What it is to solve.
        adaptive: It is to choose its steps.
        grad_free: A Milstein method is to take differences instead of derivatives.

    Raises:
        ArgumentError: If there is none of that name, or it does not solve such an equation.
    """
    if isinstance(method, StochasticMethod):
        if adaptive and method.error_order is None:
            raise ArgumentError(f"{method} has no error estimate to choose its steps by: leave out `adaptive=True`.")
        return method
    if method == "adjoint_reversible_heun":
        raise ArgumentError("adjoint_reversible_heun is an `adjoint_method`. Use `method='reversible_heun'`.")
    if not isinstance(method, str) or method not in METHODS:
        raise ArgumentError(f"`method` must be one of {', '.join(METHODS)}, or a method object, got {method!r}.")
    integrals, noises = METHODS[method]
    if equation.interpretation not in integrals or equation.noise not in noises:
        raise ArgumentError(
            f"`{method}` solves equations with sde_type {' or '.join(integrals)} and {', '.join(noises)} noise, got "
            f"{equation.interpretation} and {equation.noise} noise. euler (ito) and midpoint (stratonovich) take all "
            "kinds of noise."
        )
    return _constant(method, equation, grad_free=grad_free) if not adaptive else _adaptive(method, equation)


def _constant(name: str, equation: Equation, *, grad_free: bool) -> StochasticMethod | None:
    """Return the method for constant steps."""
    if name == "srk":
        return SRA1() if equation.noise == "additive" else SRIW1()
    if name == "milstein":
        # Without the state in the diffusion the method is that of Euler.
        additive = equation.noise == "additive"
        return EulerMaruyama() if additive else Milstein(equation.interpretation, derivative_free=grad_free)
    methods: dict[str, StochasticMethod] = {
        "euler": EulerMaruyama(),
        "midpoint": StratonovichMidpoint(),
        "heun": StratonovichHeun(),
        "euler_heun": EulerHeun(),
        "reversible_heun": ReversibleHeun(),
    }
    return methods.get(name)


def _adaptive(name: str, equation: Equation) -> StochasticMethod | None:
    """Return the method for steps that it chooses itself."""
    if name == "euler":
        return LambaEM()
    method = _constant(name, equation, grad_free=False)
    return None if method is None or method.error_order is None else method
