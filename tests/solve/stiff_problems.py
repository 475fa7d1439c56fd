"""Stiff test problems of the literature, each with its interval, scales of its components, and what is known of it.

Sources: Hairer & Wanner (1996), Solving Ordinary Differential Equations II, section IV.10; Mazzia & Magherini (2008),
Test set for initial value problem solvers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp

F64 = torch.float64


def stack(*components):
    return torch.stack(components, -1)


@dataclass(frozen=True)
class StiffProblem:
    """A problem for states of shape (n,) or (batch, n); `scale` is the size below which a component does not matter."""

    name: str
    field: Callable[..., Any]
    y0: tuple[float, ...]
    t1: float
    scale: Any = 1e-6
    exact: Callable[[float], Any] | None = None

    def __str__(self) -> str:
        return self.name

    def initial(self) -> torch.Tensor:
        return torch.tensor(self.y0, dtype=F64)

    def absolute(self) -> torch.Tensor:
        """Return the scales, one per component."""
        return torch.tensor(self.scale, dtype=F64).expand(len(self.y0)).clone()

    def reference(self) -> torch.Tensor:
        """Return the final state: the closed form, or SciPy's LSODA at a tolerance far below those of the tests."""
        return _reference(self)


@cache
def _reference(problem: StiffProblem) -> torch.Tensor:
    if problem.exact is not None:
        return torch.tensor(problem.exact(problem.t1), dtype=F64)

    def f(t, y):
        return problem.field(torch.tensor(t, dtype=F64), torch.from_numpy(y)).numpy()

    span, scale = (0.0, problem.t1), problem.absolute().numpy()
    solved = solve_ivp(f, span, problem.y0, method="LSODA", rtol=1e-11, atol=1e-11 * scale)
    assert solved.success
    return torch.from_numpy(solved.y[:, -1].copy())


def robertson(t, y):
    a, b, c = y.unbind(-1)
    slow, fast, square = 0.04 * a, 1e4 * b * c, 3e7 * b**2
    return stack(fast - slow, slow - fast - square, square)


def van_der_pol(t, y):
    x, v = y.unbind(-1)
    return stack(v, 1000.0 * (1.0 - x**2) * v - x)


def hires(t, y):
    """Growth of plant tissue under light: Schaefer (1975); Hairer and Wanner II, section IV.10."""
    a, b, c, d, e, f, g, h = y.unbind(-1)
    return stack(
        -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
        1.71 * a - 8.75 * b,
        -10.03 * c + 0.43 * d + 0.035 * e,
        8.32 * b + 1.71 * c - 1.12 * d,
        -1.745 * e + 0.43 * f + 0.43 * g,
        -280.0 * f * h + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
        280.0 * f * h - 1.81 * g,
        -280.0 * f * h + 1.81 * g,
    )


def oregonator(t, y):
    a, b, c = y.unbind(-1)
    return stack(77.27 * (b + a * (1.0 - 8.375e-6 * a - b)), (c - (1.0 + a) * b) / 77.27, 0.161 * (a - c))


def e5(t, y):
    """Chemical pyrolysis: Hairer and Wanner II, section IV.10. Concentrations from 1e-3 to 1e-13."""
    a, b, c, d = y.unbind(-1)
    start, middle, end, back = 7.89e-10 * a, 1.1e7 * a * c, 1.13e9 * b * c, 1.13e3 * d
    return stack(-start - middle, start - end, start - middle - end + back, middle - back)


RATES = torch.tensor([-1.0, -10.0, -1e2, -1e3, -1e4, -1e6], dtype=F64)
BASIS = torch.linalg.qr(torch.randn(6, 6, dtype=F64, generator=torch.Generator().manual_seed(0)))[0]


def linear(t, y):
    return torch.nn.functional.linear(y, BASIS * RATES @ BASIS.T)


def linear_solution(t):
    return (BASIS * torch.exp(RATES * t) @ BASIS.T @ torch.ones(6, dtype=F64)).tolist()


def column(t, y):
    """The time with the rank of the state, batched or not."""
    return t if t.ndim == y.ndim or t.ndim == 0 else t.unsqueeze(-1)


def prothero_robinson(t, y):
    t = column(t, y)
    return -1e6 * (y - torch.cos(t)) - torch.sin(t)


def forced(t, y):
    return -1000.0 * y + 3000.0 - 2000.0 * torch.exp(-column(t, y))


def forced_solution(t):
    return [3.0 - 0.998 * np.exp(-1000.0 * t) - 2.002 * np.exp(-t)]


CELLS = 20


def laplacian(u, left, right):
    """Second differences of a row of cells between two given values."""
    wide = torch.cat([left.expand_as(u[..., :1]), u, right.expand_as(u[..., :1])], -1)
    return (wide[..., 2:] - 2.0 * wide[..., 1:-1] + wide[..., :-2]) * (CELLS + 1) ** 2


def heat(t, u):
    """Heat conduction between a wall of varying temperature and a cold one."""
    t = column(t, u)
    return laplacian(u, torch.sin(5.0 * t), 0.0 * t) + torch.cos(t) * u**2


def brusselator(t, y):
    u, v = y.chunk(2, -1)
    one, three = torch.ones_like(u[..., :1]), 3.0 * torch.ones_like(u[..., :1])
    square = u**2 * v
    return torch.cat(
        [1.0 + square - 4.0 * u + 0.02 * laplacian(u, one, one), 3.0 * u - square + 0.02 * laplacian(v, three, three)],
        -1,
    )


POINTS = np.arange(1, CELLS + 1) / (CELLS + 1)

PROBLEMS = (
    StiffProblem("Robertson", robertson, (1.0, 0.0, 0.0), 1e5, scale=(1e-2, 1e-8, 1e-2)),
    StiffProblem("van der Pol, mu = 1000", van_der_pol, (2.0, 0.0), 2000.0, scale=(1e-2, 1e-4)),
    StiffProblem("HIRES", hires, (1.0, 0, 0, 0, 0, 0, 0, 0.0057), 321.8122, scale=1e-5),
    StiffProblem("Oregonator", oregonator, (1.0, 2.0, 3.0), 360.0, scale=1e-1),
    StiffProblem("E5", e5, (1.76e-3, 0.0, 0.0, 0.0), 1e5, scale=(1e-5, 1e-12, 1e-14, 1e-12)),
    StiffProblem("linear, rates 1 to 1e6", linear, (1.0,) * 6, 1.5, scale=1e-2, exact=linear_solution),
    StiffProblem("Prothero-Robinson", prothero_robinson, (1.0,), 5.0, scale=1e-2, exact=lambda t: [np.cos(t)]),
    StiffProblem("forced relaxation", forced, (0.0,), 3.0, scale=1e-2, exact=forced_solution),
    StiffProblem("heat by lines", heat, tuple(np.sin(np.pi * POINTS)), 1.0, scale=1e-2),
    StiffProblem(
        "Brusselator by lines",
        brusselator,
        (*(1.0 + np.sin(2 * np.pi * POINTS)), *np.full(CELLS, 3.0)),
        10.0,
        scale=1e-2,
    ),
)
