"""COVID-19 in Wuhan: what a neural ODE and a universal ODE, trained on 21 days, say about day 60."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from ude.discovery import Discovery, Polynomial, discover
from ude.fit import Fit, fit
from ude.models import MLP, UDE, Term
from ude.problems import Trajectories
from ude.reproduce.data import exact
from ude.reproduce.reproduction import Line, Outcome, Settings
from ude.systems import SEIR_STATES, SEIRParameters, seir

P = SEIRParameters()
OBSERVED = ("E", "I", "R")
LINEARISED = P.beta_0 * (1 - P.alpha) * 0.9
"""The exposure is close to this times I: the susceptible share stays near 0.9 and the reaction is weak."""


def measurements() -> Trajectories:
    """E, I and R on days 0 to 21, without noise; the other states are never observed."""
    ts = torch.arange(22, dtype=torch.float64)
    ys = exact(seir(), ts)
    hidden = [name not in OBSERVED for name in SEIR_STATES]
    ys[:, torch.tensor(hidden)] = torch.nan
    return Trajectories.from_arrays(ts, ys, states=SEIR_STATES)


def universal(t: Tensor, y: Tensor, p: Any, u: Any) -> tuple[Tensor, ...]:
    """Everything known but the exposure, u(S/N, I, D/N)."""
    s, e, i, r, n, d, _ = y.unbind(-1)
    exposure = u(torch.stack([s / n, i, d / n], -1))[..., 0]
    new = P.beta_0 * P.exposure * s / n + exposure
    return (
        -new - P.mu * s,
        new - (P.sigma + P.mu) * e,
        P.sigma * e - (P.gamma + P.mu) * i,
        P.gamma * i - P.mu * r,
        -P.mu * n,
        P.death * P.gamma * i - P.lam * d,
        P.sigma * e,
    )


def neural(t: Tensor, y: Tensor, p: Any, u: Any) -> tuple[Tensor, ...]:
    """Nothing known but the balances of N and C: a network gives the other five rates."""
    s, e, i, r, n, d, c = y.unbind(-1)
    rates = u(torch.stack([s / n, e, i, r, n, d / n, c], -1))
    ds, de, di, dr, dd = rates.unbind(-1)
    return ds, de, di, dr, -P.mu * n, dd, P.sigma * e


def universal_model() -> UDE:
    """The paper's network for the exposure, 3-64-64-1 tanh."""
    term = Term(MLP(3, 1, width=64, depth=2), inputs=("s", "I", "d"), outputs=("exposure",))
    return UDE(universal, {"u": term}, states=SEIR_STATES)


def neural_model() -> UDE:
    """The paper's network for five rates, 7-64-64-64-5 tanh."""
    names = ("s", "E", "I", "R", "N", "d", "C")
    term = Term(MLP(7, 5, width=64, depth=3), inputs=names, outputs=("S", "E", "I", "R", "D"))
    return UDE(neural, {"u": term}, states=SEIR_STATES)


def error_at_60(found: Fit | Discovery, truth: Tensor) -> float:
    """Largest relative error of E, I and R on day 60."""
    path = found.predict(torch.tensor([0.0, 60.0], dtype=torch.float64)).ys[0, -1]
    columns = [SEIR_STATES.index(name) for name in OBSERVED]
    return float(((path - truth)[columns] / truth[columns]).abs().amax())


def one_term(discovery: Discovery) -> float:
    """Coefficient of I in the equation with that one term."""
    for candidate in discovery.candidates:
        (functions,) = candidate.terms.values()
        if set(functions) == {"I"}:
            return functions["I"]
    return float("nan")


def run(settings: Settings) -> Outcome:
    """Train both models on 21 days, recover the exposure, compare on day 60."""
    start = time.perf_counter()
    data, y0 = measurements(), seir().y0
    truth = exact(seir((0.0, 60.0)), torch.tensor([60.0], dtype=torch.float64))[0]
    errors: dict[str, list[float]] = {"neural": [], "universal": [], "recovered": []}
    found = []
    for seed in range(settings.first_seed, settings.first_seed + settings.seeds):
        for name, model in (("neural", neural_model()), ("universal", universal_model())):
            generator = torch.Generator().manual_seed(seed)
            result = fit(model, data, y0=y0, replicates=1, generator=generator, progress=settings.progress)
            errors[name].append(error_at_60(result, truth))
            if name == "universal":
                found.append(discover(result, library=Polynomial(degree=2), learn_y0=False))
                errors["recovered"].append(error_at_60(found[-1], truth))
    ratio = [a / b for a, b in zip(errors["neural"], errors["universal"], strict=True)]
    slopes = [one_term(d) for d in found]
    middle = settings.seeds // 2
    lines = [
        Line(quantity="neural ODE, error on day 60", paper="wrong asymptotics (figure)", ours=errors["neural"]),
        Line(
            quantity="universal ODE, error on day 60",
            paper="close (figure)",
            ours=errors["universal"],
            target="median <= 3 %",
            passed=sorted(errors["universal"])[middle] <= 0.03,
        ),
        Line(
            quantity="neural error / universal error",
            paper="",
            ours=ratio,
            target="median >= 10",
            passed=sorted(ratio)[middle] >= 10,
        ),
        Line(quantity="recovered equation, error on day 60", paper="", ours=errors["recovered"]),
        Line(
            quantity=f"coefficient of I (linearised truth {LINEARISED:.4f})",
            paper="0.30652",
            ours=slopes,
            target="0.300 to 0.309",
            passed=0.300 <= sorted(slopes)[middle] <= 0.309,
        ),
    ]
    notes = ["Day 60, truth: E, I, R = " + ", ".join(f"{float(v):.2f}" for v in truth[[1, 2, 3]])]
    notes += [f"Seed {settings.first_seed + k}: exposure = {d.terms[0]}" for k, d in enumerate(found)]
    return Outcome(lines=lines, seconds=time.perf_counter() - start, notes=notes)
