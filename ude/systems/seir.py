"""A model of the COVID-19 outbreak in Wuhan: states that differ by six orders of magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ude.problems import ODEProblem

SEIR_STATES = ("S", "E", "I", "R", "N", "D", "C")
"""Susceptible, exposed, infected, recovered, population, public perception of risk, cumulative cases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SEIRParameters:
    r"""Constants of the `seir` model; rates are per day.

    Args:
        exposure: Number $F$ of infectious people outside the model.
        beta_0: Transmission rate $\beta_0$ before any measure.
        alpha: Strength of the government's action, between 0 and 1.
        kappa: Intensity of the public's reaction to deaths.
        mu: Emigration rate.
        sigma: One over the latent period.
        gamma: One over the infectious period.
        death: Share of severe cases among the infected.
        lam: One over the duration of the public's reaction.
    """

    exposure: float = 10.0
    beta_0: float = 0.5944
    alpha: float = 0.4239
    kappa: float = 1117.3
    mu: float = 0.02
    sigma: float = 1 / 3
    gamma: float = 1 / 5
    death: float = 0.2
    lam: float = 1 / 11.2


def seir(
    t_span: tuple[float, float] = (0.0, 21.0), *, population: float = 14e6, p: SEIRParameters | None = None
) -> ODEProblem:
    r"""SEIR model with a public that reacts, time in days, states `SEIR_STATES` counted in people.

    The exposure is $x = \beta I S / N$ with $\beta = \beta_0 (1 - \alpha)(1 - D/N)^\kappa$, and

    $$S' = -\beta_0 F S/N - x - \mu S,\quad E' = \beta_0 F S/N + x - (\sigma + \mu) E,\quad
      I' = \sigma E - (\gamma + \mu) I,$$
    $$R' = \gamma I - \mu R,\quad N' = -\mu N,\quad D' = d \gamma I - \lambda D,\quad C' = \sigma E.$$

    The start is nine tenths of the population susceptible, and nobody exposed.

    Reference:
        Lin et al. (2020), "A conceptual model for the COVID-19 outbreak in Wuhan, China with individual reaction
        and governmental action", with the constants used by Rackauckas et al. (2020).

    Example:
        >>> problem = seir()
        >>> round(problem.vector_field(0.0, problem.y0, problem.p)[1].item(), 4)
        5.3496
    """
    y0 = torch.tensor([0.9 * population, 0, 0, 0, population, 0, 0], dtype=torch.float64)
    return ODEProblem(_seir, y0, t_span, p or SEIRParameters())


def seir_exposure(y: Tensor, p: SEIRParameters | None = None) -> Tensor:
    r"""Exposure term $\beta S I / N$ at the state `y` of shape `(*batch, 7)`, in people per day, shape `(*batch,)`."""
    p = p or SEIRParameters()
    susceptible, _, infected, _, total, perception, _ = y.unbind(-1)
    beta = p.beta_0 * (1 - p.alpha) * (1 - perception / total).pow(p.kappa)
    return beta * susceptible * infected / total


def _seir(t: object, y: Tensor, p: SEIRParameters) -> Tensor:
    s, e, i, r, n, d, _ = y.unbind(-1)
    new = p.beta_0 * p.exposure * s / n + seir_exposure(y, p)
    return torch.stack(
        [
            -new - p.mu * s,
            new - (p.sigma + p.mu) * e,
            p.sigma * e - (p.gamma + p.mu) * i,
            p.gamma * i - p.mu * r,
            -p.mu * n,
            p.death * p.gamma * i - p.lam * d,
            p.sigma * e,
        ],
        -1,
    )
