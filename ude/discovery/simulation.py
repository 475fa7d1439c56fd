"""Fast simulation of a sparse model: a scalar right-hand side in plain Python, integrated by LSODA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ude.discovery.libraries import Library

if TYPE_CHECKING:
    import numpy as np
    import sympy

ScalarField = Callable[..., Sequence[float]]
"""Called with one float per input; returns one float per equation."""


def expressions(library: Library, coefficients: Tensor, symbols: Sequence[sympy.Expr]) -> list[sympy.Expr]:
    """Write a sparse model as one symbolic expression per equation; zero coefficients leave no trace."""
    import sympy

    terms = library.sympy(symbols)
    return [
        sympy.Add(*(sympy.Float(c, 17) * term for c, term in zip(row, terms, strict=True) if c != 0))
        for row in coefficients.tolist()
    ]


def scalar_field(library: Library, coefficients: Tensor, n_inputs: int) -> ScalarField:
    """Compile a sparse model to a plain Python function, about a microsecond a call.

    A library without symbols is evaluated as it is, which takes a hundred times as long.

    Args:
        library: The candidate functions.
        coefficients: Shape `(equations, features)`.
        n_inputs: Number of states and exogenous inputs.
    """
    import sympy

    symbols = sympy.symbols(f"x:{n_inputs}", real=True)
    try:
        model = expressions(library, coefficients, symbols)
    except ValueError:
        weights = coefficients.double().cpu()
        return lambda *x: (library(torch.tensor(x, dtype=weights.dtype)) @ weights.T).tolist()
    return sympy.lambdify(symbols, model, modules="math", cse=True)


def integrate(
    field: ScalarField,
    x0: np.ndarray,
    t: np.ndarray,
    signal: Callable[[float], Sequence[float]] | None,
    *,
    rtol: float,
    atol: float,
) -> np.ndarray:
    """Integrate with ODEPACK's LSODA and return the states at `t`, shape `(times, states)`.

    Raises:
        RuntimeError: If the solution cannot be continued to the last time.
    """
    from scipy.integrate import odeint

    if signal is None:

        def rhs(x: np.ndarray, time: float) -> Sequence[float]:
            return field(*x.tolist())
    else:

        def rhs(x: np.ndarray, time: float) -> Sequence[float]:
            return field(*x.tolist(), *signal(time))

    try:
        states, report = odeint(rhs, x0, t, rtol=rtol, atol=atol, mxstep=1_000_000, full_output=True)
        reason = report["message"]
    except (ArithmeticError, ValueError) as error:
        # Plain Python raises where a number leaves its range: an overflow, a logarithm or root of a negative number.
        states, reason = None, f"{error}."
    if states is None or reason != "Integration successful.":
        raise RuntimeError(
            f"The model could not be simulated from t = {t[0]:g} to {t[-1]:g}: {reason} Its solution probably grows "
            "without bound before. Simulate a shorter time, or fit a sparser model."
        )
    return states


def as_signal(u: Any, t: np.ndarray) -> Callable[[float], Sequence[float]]:
    """Return exogenous inputs as a function of time; an array is interpolated by a cubic spline through its samples."""
    import numpy as np

    if callable(u):
        return lambda time: np.atleast_1d(np.asarray(u(time), dtype=float)).ravel().tolist()
    from scipy.interpolate import make_interp_spline

    values = np.asarray(u, dtype=float).reshape(len(t), -1)
    spline = make_interp_spline(t, values, k=min(3, len(t) - 1))
    return lambda time: spline(time).tolist()
