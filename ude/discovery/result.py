"""What a discovery gives back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ude.discovery.symbols import complete_system
from ude.models import UDE, EquationSystem, Expression, Signal, Term
from ude.models.equations import to_latex
from ude.models.equations.printing import latex_name
from ude.problems import ODEProblem, Trajectories
from ude.solve import solve

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredTerm:
    """One output of an unknown term as a weighted sum of library functions.

    Args:
        term: Name of the unknown term.
        output: Name of the output.
        inputs: Names of its inputs.
        features: Names of the functions.
        coefficients: Their weights.
        inclusion: For every function that occurs in any candidate of weight, the probability that it belongs in
            the equation.
        mismatch: Distance between the recovered and the learned term along the learned trajectories, relative to the
            size of the learned one.
    """

    term: str
    output: str
    inputs: tuple[str, ...]
    features: tuple[str, ...]
    coefficients: tuple[float, ...]
    inclusion: Mapping[str, float]
    mismatch: float

    def __str__(self) -> str:
        parts = [f"{c:.4g} {f}".removesuffix(" 1") for c, f in zip(self.coefficients, self.features, strict=True)]
        return " + ".join(parts).replace("+ -", "- ") or "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One of the equations that were fitted to the data.

    Args:
        terms: For every output of every unknown term, `"term.output"`, the functions and their coefficients.
        sse: Sum of squared errors of every state, in the units of the data.
        aic: Akaike's criterion.
        bic: Bayesian information criterion; like the others up to a constant that all candidates share.
        ebic: Extended BIC, which also counts how many equations of this length there are.
        weight: Probability of this candidate among all that were fitted, by the criterion used.
        converged: Whether its fit has converged.
    """

    terms: Mapping[str, Mapping[str, float]]
    sse: tuple[float, ...]
    aic: float
    bic: float
    ebic: float
    weight: float
    converged: bool

    @property
    def size(self) -> int:
        """Number of coefficients."""
        return sum(map(len, self.terms.values()))

    def __str__(self) -> str:
        return "; ".join(f"{name}: {', '.join(functions) or '0'}" for name, functions in self.terms.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A fitted number.

    Args:
        name: `"term.output: function"`, the name of a physical parameter, or `"state(0)"` for an initial state
            (`"state(0) [group]"` where there are several trajectories).
        kind: What it is.
        value: The number, in the units of the data.
        error: Standard error.
    """

    name: str
    kind: str
    value: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    r"""Recovered equations, fitted to the data, with what is known about their certainty.

    Args:
        model: The model with the recovered terms in place of the networks, everything fitted to the data.
        y0: Fitted initial states, shape `(groups, states)`.
        data: The data.
        terms: Every output of every unknown term.
        candidates: All equations that were fitted, best first; the chosen one is `chosen`.
        chosen: The candidate that was chosen.
        estimates: All fitted numbers: coefficients, physical parameters, initial states.
        covariance: Their covariance $(J^T \Sigma^{-1} J)^{-1}$ with the derivative $J$ of the solution at the data and
            the noise variance $\Sigma$ estimated from the residuals, shape `(estimates, estimates)`.
        singular_values: Of $\Sigma^{-1/2} J$ with columns of unit length, shape `(estimates,)`. The smallest is near
            zero where the data cannot tell the effects of some numbers apart.
        freedom: Number of measurements less number of fitted numbers.
        noise: Estimated standard deviation of the noise of every state, shape `(states,)`.
        learned_sse: Sum of squared errors of the best network, for comparison with `sse`.
        stability: Share of the bootstrap samples in which this structure was chosen; None without bootstraps.
        warnings: What the reader of the result should know.
        signal: Exogenous inputs.
    """

    model: UDE
    y0: Tensor
    data: Trajectories
    terms: tuple[RecoveredTerm, ...]
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    estimates: tuple[Estimate, ...]
    covariance: Tensor
    singular_values: Tensor
    freedom: int
    noise: Tensor
    learned_sse: float
    stability: float | None
    warnings: tuple[str, ...]
    signal: Signal | None = None

    @property
    def sse(self) -> float:
        """Sum of squared errors over all states, in the units of the data."""
        return sum(self.chosen.sse)

    @property
    def system(self) -> EquationSystem | None:
        """The complete equations, numbers put in.

        A known part whose code does not accept symbols appears as a function `known_x` of time and states. None if
        such a known part calls the unknown terms itself, or if a function of the library has no symbolic form.
        """
        networks = [self.module(name) for name in self.model.terms]
        if not all(isinstance(network, Expression) for network in networks):
            return None
        return complete_system(self.model, self.data.time)

    @property
    def sympy(self) -> dict[str, sympy.Expr]:
        """Right-hand side of every equation; where they cannot be written down, the recovered terms by output."""
        system = self.system
        if system is not None:
            return dict(zip(system.states, system.rhs, strict=True))
        expressions = {name: self.module(name) for name in self.model.terms}
        return {
            f"{name}.{output}": formula
            for name, e in expressions.items()
            if isinstance(e, Expression)
            for output, formula in zip(cast("Term", self.model.terms[name]).outputs, e.sympy, strict=True)
        }

    @property
    def equations(self) -> tuple[str, ...]:
        """The complete equations as text, such as `x' = 1.3*x - 0.9*x*y`, or else the recovered terms."""
        system = self.system
        if system is not None:
            return tuple(system.texts(5))
        return tuple(f"{t.term}.{t.output} = {t}" for t in self.terms)

    def latex(self, digits: int = 4) -> str:
        """Return the equations as LaTeX, an `aligned` block."""
        system = self.system
        if system is not None:
            return system.latex(digits)
        rows = [rf"{latex_name(name)} &= {to_latex(formula, digits)}" for name, formula in self.sympy.items()]
        return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"

    def module(self, term: str | None = None) -> nn.Module:
        """Return a recovered term with learnable coefficients, as `UDE.replace` takes it: an `Expression`.

        A `SparseTerm` if a function of the library has no symbolic form.

        Args:
            term: Name of the unknown term; may be left out if there is one.
        """
        if term is None and len(self.model.terms) != 1:
            raise ValueError(f"Say which term: there are {tuple(self.model.terms)}.")
        name = next(iter(self.model.terms)) if term is None else term
        if name not in self.model.terms:
            raise ValueError(f"There is no unknown term {name!r}; the terms are {tuple(self.model.terms)}.")
        return self.model.terms[name].get_submodule("network")

    def intervals(self, level: float = 0.9) -> dict[str, tuple[float, float]]:
        """Return a confidence interval of every fitted number by its name, from Student's distribution.

        Args:
            level: Probability that an interval covers the true number.
        """
        from scipy.stats import t

        if not 0 < level < 1:
            raise ValueError(f"`level` must lie between 0 and 1, got {level}.")
        reach = float(t.ppf((1 + level) / 2, self.freedom))
        return {e.name: (e.value - reach * e.error, e.value + reach * e.error) for e in self.estimates}

    @property
    def inclusion(self) -> dict[str, dict[str, float]]:
        """Probability that a function belongs in the equation, by `"term.output"` and name of the function."""
        return {f"{t.term}.{t.output}": dict(t.inclusion) for t in self.terms}

    def predict(self, ts: Tensor, *, rtol: float = 1e-8) -> Trajectories:
        """Solve the recovered equations.

        Args:
            ts: Times, shape `(times,)` or `(groups, times)`, not before the first measurement.
            rtol: Relative tolerance.
        """
        data, model = self.data, self.model
        ts = ts.to(data.ts).expand(len(data.groups), -1)
        field, signal = model.latent_field(), self.signal
        problem = ODEProblem(
            lambda t, z: field(t, z, None if signal is None else signal(t.squeeze(-1))),
            model.coordinates.encode(self.y0),
            (data.ts[:, 0], ts[:, -1]),
            batched=True,
        )
        scale = self.data.ys.abs().nan_to_num(nan=0.0).amax((0, 1)).clamp(min=1e-12)
        with torch.no_grad():
            sol = solve(problem, save_at=ts.T, rtol=rtol, atol=rtol * scale, dense=False)
        ys = model.coordinates.decode(sol.ys).permute(1, 0, 2)
        return Trajectories(ts=ts, ys=ys, states=data.states, groups=data.groups, time=data.time)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the model as plain numbers, strings, lists and dictionaries, ready for JSON."""
        low_high = self.intervals()
        return {
            "equations": list(self.equations),
            "terms": [
                {"term": t.term, "output": t.output, "inputs": list(t.inputs), "features": list(t.features)}
                | {"coefficients": list(t.coefficients), "inclusion": dict(t.inclusion), "mismatch": t.mismatch}
                for t in self.terms
            ],
            "estimates": [
                {
                    "name": e.name,
                    "kind": e.kind,
                    "value": e.value,
                    "error": e.error,
                    "interval90": list(low_high[e.name]),
                }
                for e in self.estimates
            ],
            "covariance": self.covariance.tolist(),
            "singular_values": self.singular_values.tolist(),
            "candidates": [_candidate_dict(c) for c in self.candidates],
            "chosen": self.candidates.index(self.chosen),
            "y0": self.y0.tolist(),
            "noise": self.noise.tolist(),
            "sse": self.sse,
            "learned_sse": self.learned_sse,
            "freedom": self.freedom,
            "stability": self.stability,
            "warnings": list(self.warnings),
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON; numbers that are not finite become null."""
        return json.dumps(_finite(self.to_dict()), indent=2, allow_nan=False)

    def __str__(self) -> str:
        intervals = self.intervals()
        lines = [*self.equations, ""]
        lines += [
            f"{e.name:<24} {e.value:>11.5g}   90 % in [{intervals[e.name][0]:.5g}, {intervals[e.name][1]:.5g}]"
            for e in self.estimates
        ]
        lines += ["", f"Sum of squared errors {self.sse:.5g} (network {self.learned_sse:.5g})"]
        lines += [f"Probability {c.weight:.2f}   {c}" for c in self.candidates[:5]]
        return "\n".join([*lines, *(f"Warning: {w}" for w in self.warnings)])


def _candidate_dict(candidate: Candidate) -> dict[str, Any]:
    names = ("aic", "bic", "ebic", "weight", "converged")
    terms = {name: dict(functions) for name, functions in candidate.terms.items()}
    return {"terms": terms, "sse": list(candidate.sse)} | {name: getattr(candidate, name) for name in names}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
