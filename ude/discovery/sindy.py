"""Sparse identification of nonlinear dynamics, as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ude._checks import UdeWarning
from ude.discovery.differentiation import Differentiation, FiniteDifference, FromPySINDyDifferentiation
from ude.discovery.forward import ForwardSelection
from ude.discovery.libraries import Polynomial, as_library
from ude.discovery.measurements import Measurements, like, trajectories
from ude.discovery.simulation import as_signal, expressions, integrate, scalar_field
from ude.discovery.sparse_field import SparseField
from ude.discovery.sr3 import SR3
from ude.discovery.stlsq import STLSQ

if TYPE_CHECKING:
    import sympy


class SINDy(BaseEstimator):
    r"""Sparse identification of nonlinear dynamics, $\dot x = \Xi\, \theta(x, u)$ with few entries of $\Xi$ not zero.

    The estimator of pysindy, with the same contract: data are arrays or tensors of shape `(times, states)`, or lists
    of them, one per trajectory; libraries, optimizers and differentiation methods may be ours or pysindy's.
    Samples with a missing value (NaN) are left out.

    Args:
        optimizer: Sparse regression, `STLSQ()` by default. `SR3()`, `ForwardSelection(k_max=k)` for k terms
            per equation, or any estimator with `fit(features, targets)` and `coef_`, such as pysindy's.
        feature_library: Candidate functions, `Polynomial(degree=2)` by default.
        differentiation_method: How time derivatives are estimated, `FiniteDifference()` by default.

    Example:
        >>> t = np.linspace(0, 5, 200)
        >>> x = np.stack([np.exp(-t) * np.cos(2 * t), np.exp(-t) * np.sin(2 * t)], axis=-1)
        >>> model = SINDy(feature_library=Polynomial(degree=2)).fit(x, t, feature_names=["x", "y"])
        >>> model.print(precision=1)
        x' = -1.0 x - 2.0 y
        y' = 2.0 x - 1.0 y

    Reference:
        Brunton, Proctor and Kutz (2016), Discovering governing equations from data by sparse identification of
        nonlinear dynamical systems.
    """

    def __init__(self, optimizer: Any = None, feature_library: Any = None, differentiation_method: Any = None) -> None:
        self.optimizer = optimizer
        self.feature_library = feature_library
        self.differentiation_method = differentiation_method

    def fit(
        self, x: Any, t: Any, x_dot: Any = None, u: Any = None, feature_names: Sequence[str] | None = None
    ) -> SINDy:
        """Find the equations.

        Args:
            x: States, shape `(times, states)`, or a list of such.
            t: Time step, times of shape `(times,)`, or a list of either, one per trajectory.
            x_dot: Time derivatives like `x`; estimated if None.
            u: Exogenous inputs of shape `(times, inputs)`, or a list of such.
            feature_names: Names of the states and inputs; `x0, x1, ..., u0, ...` by default.

        Returns:
            The estimator, with `coef_` of shape `(states, features)`.
        """
        data = trajectories(x, t, x_dot, u).differentiated(self._differentiation())
        n_states, n_inputs = data.x[0].shape[-1], 0 if data.u is None else data.u[0].shape[-1]
        names = [f"x{i}" for i in range(n_states)] + [f"u{i}" for i in range(n_inputs)]
        if feature_names is not None and len(feature_names) != len(names):
            raise ValueError(f"`feature_names` must name {n_states} states and {n_inputs} inputs, got {feature_names}.")
        columns, slopes = data.samples()
        self.library_ = as_library(Polynomial() if self.feature_library is None else self.feature_library)
        self.coef_ = _regress(STLSQ() if self.optimizer is None else self.optimizer, self.library_(columns), slopes)
        self.feature_names = list(names if feature_names is None else feature_names)
        self.n_features_in_ = n_states + n_inputs
        self.n_control_features_ = n_inputs
        return self

    def predict(self, x: Any, u: Any = None) -> Any:
        """Return the time derivatives at the given states (and inputs), as the kind of array `x` is."""
        check_is_fitted(self)
        data = trajectories(x, 1.0, None, u)
        self._check_inputs(data)
        found = [self.library_(columns) @ torch.as_tensor(self.coef_).to(columns).mT for columns in data.columns()]
        return like(found, x)

    def score(
        self,
        x: Any,
        t: Any,
        x_dot: Any = None,
        u: Any = None,
        metric: Callable[..., float] | None = None,
    ) -> float:
        """Return the coefficient of determination of the predicted time derivatives, or another `metric` of sklearn."""
        from sklearn.metrics import r2_score

        check_is_fitted(self)
        data = trajectories(x, t, x_dot, u)
        self._check_inputs(data)
        predicted = self.predict(data.x, data.u)
        slopes = data.differentiated(self._differentiation()).x_dot
        truth, guess = torch.cat(slopes or []), torch.cat(predicted)
        is_known = (truth.isfinite() & guess.isfinite()).all(-1)
        return float((metric or r2_score)(truth[is_known].cpu().numpy(), guess[is_known].cpu().numpy()))

    def simulate(self, x0: Any, t: Any, u: Any = None, *, rtol: float = 1e-12, atol: float = 1e-12) -> Any:
        """Integrate the equations with LSODA.

        The sparse right-hand side is compiled to plain Python first, which is hundreds of times faster than evaluating
        the library at every step.

        Args:
            x0: State at `t[0]`, shape `(states,)`.
            t: Times of the result, shape `(times,)`.
            u: Exogenous inputs: a function of time, or an array `(times, inputs)` that a cubic spline interpolates.
            rtol: Relative tolerance.
            atol: Absolute tolerance, in the unit of the states.

        Returns:
            States at `t`, shape `(times, states)`, as the kind of array `x0` is.

        Raises:
            RuntimeError: If the solution grows without bound before the last time.
        """
        check_is_fitted(self)
        if (u is None) != (self.n_control_features_ == 0):
            raise ValueError(
                f"The model has {self.n_control_features_} exogenous input(s): pass `u` if and only if any."
            )
        times = np.asarray(t, dtype=float)
        start = np.asarray(x0, dtype=float)
        field = scalar_field(self.library_, torch.as_tensor(self.coef_), self.n_features_in_)
        signal = None if u is None else as_signal(u, times)
        states = integrate(field, start, times, signal, rtol=rtol, atol=atol)
        return torch.from_numpy(states).to(x0) if isinstance(x0, Tensor) else states

    def equations(self, precision: int = 3) -> list[str]:
        """Return the right-hand sides as text, coefficients rounded to `precision` decimals."""
        check_is_fitted(self)
        names = self.get_feature_names()
        return [_write(row, names, precision) for row in self.coef_]

    def print(self, lhs: Sequence[str] | None = None, precision: int = 3) -> None:
        """Print the equations, with `x' =` or the given left-hand sides."""
        left = [f"{name}'" for name in self.feature_names] if lhs is None else lhs
        for name, equation in zip(left, self.equations(precision), strict=False):
            print(f"{name} = {equation}")  # noqa: T201

    def sympy(self) -> list[sympy.Expr]:
        """Return the right-hand sides as sympy expressions in symbols named after states and inputs."""
        import sympy

        check_is_fitted(self)
        return expressions(self.library_, torch.as_tensor(self.coef_), [sympy.Symbol(n) for n in self.feature_names])

    def to_module(self) -> SparseField:
        """Return the equations as an `nn.Module` `f(t, y)` with learnable coefficients."""
        check_is_fitted(self)
        return SparseField(self.library_, torch.as_tensor(self.coef_))

    def coefficients(self) -> np.ndarray:
        """Return the coefficients, shape `(states, features)`."""
        check_is_fitted(self)
        return self.coef_

    def get_feature_names(self) -> list[str]:
        """Return the names of the candidate functions."""
        check_is_fitted(self)
        return self.library_.names(self.feature_names)

    @property
    def complexity(self) -> int:
        """Number of terms."""
        check_is_fitted(self)
        return int(np.count_nonzero(self.coef_))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the options; with `deep` also those of the optimizer and library, as `optimizer__threshold`."""
        found = super().get_params(deep)
        parts = {name: part for name, part in found.items() if deep and is_dataclass(part) and "__" not in name}
        return found | {
            f"{name}__{field.name}": getattr(part, field.name) for name, part in parts.items() for field in fields(part)
        }

    def set_params(self, **params: Any) -> SINDy:
        """Set options, also nested ones such as `optimizer__threshold=0.2`."""
        rest = {}
        for name, value in params.items():
            part, _, option = name.partition("__")
            if option and is_dataclass(getattr(self, part, None)):
                setattr(self, part, replace(getattr(self, part), **{option: value}))
            else:
                rest[name] = value
        super().set_params(**rest)
        return self

    def _differentiation(self) -> Differentiation:
        method = self.differentiation_method
        if method is None:
            return FiniteDifference()
        return method if isinstance(method, Differentiation) else FromPySINDyDifferentiation(method)

    def _check_inputs(self, data: Measurements) -> None:
        n_inputs = 0 if data.u is None else data.u[0].shape[-1]
        n_states = self.n_features_in_ - self.n_control_features_
        if (data.x[0].shape[-1], n_inputs) != (n_states, self.n_control_features_):
            raise ValueError(
                f"The model was fitted with {n_states} state(s) and {self.n_control_features_} exogenous input(s), "
                f"got {data.x[0].shape[-1]} and {n_inputs}."
            )


def _regress(optimizer: Any, features: Tensor, targets: Tensor) -> np.ndarray:
    """Fit with one of our optimizers, or with one that follows scikit-learn."""
    if isinstance(optimizer, STLSQ | SR3 | ForwardSelection):
        fit = optimizer.fit(features, targets)
        # A path over the number of terms: take the largest.
        coefficients = fit.coefficients[-1] if fit.coefficients.ndim > 2 else fit.coefficients
        found = coefficients.cpu().numpy()
        if not bool(fit.converged.all()):
            warnings.warn(f"{type(optimizer).__name__} did not converge; raise `max_iter`.", UdeWarning, stacklevel=3)
    else:
        optimizer.fit(features.cpu().numpy(), targets.cpu().numpy())
        found = np.atleast_2d(optimizer.coef_)
        if np.any(getattr(optimizer, "intercept_", 0.0)):
            raise ValueError("The optimizer fits an intercept, which is a library's task: pass `fit_intercept=False`.")
    empty = [i for i, row in enumerate(found) if not row.any()]
    if empty:
        warnings.warn(f"Equation(s) {empty} have no term left: lower the threshold.", UdeWarning, stacklevel=3)
    return found


def _write(coefficients: np.ndarray, names: Sequence[str], precision: int) -> str:
    """Write one right-hand side, terms that round to zero left out."""
    text = ""
    for c, name in zip(coefficients.tolist(), names, strict=True):
        if round(c, precision) == 0:
            continue
        sign = ("-" if c < 0 else "") if not text else (" - " if c < 0 else " + ")
        text += f"{sign}{abs(c):.{precision}f}" + (f" {name}" if name != "1" else "")
    return text or f"{0:.{precision}f}"
