"""Reference problems in small ordinary differential equations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ude.problems import ODEProblem


def harmonic_oscillator(
    y0: Sequence[float] = (1.0, 0.0), t_span: tuple[float, float] = (0.0, 10.0), *, omega: float = 1.0
) -> ODEProblem:
    r"""Harmonic oscillator $x' = v,\; v' = -\omega^2 x$; `harmonic_oscillator_solution` is its exact solution.

    Args:
        y0: Position and velocity at the start.
        t_span: Start and end time.
        omega: Angular frequency, in radians per time unit.

    Example:
        >>> problem = harmonic_oscillator()
        >>> problem.vector_field(0.0, problem.y0, problem.p)
        tensor([ 0., -1.], dtype=torch.float64)
    """
    return ODEProblem(_harmonic_oscillator, _state(y0), t_span, _state([omega]))


def harmonic_oscillator_solution(t: Tensor, y0: Sequence[float] = (1.0, 0.0), *, omega: float = 1.0) -> Tensor:
    """Exact state at the times `t` of `harmonic_oscillator` started in `y0` at time 0, shape `(*t.shape, 2)`."""
    x0, v0 = y0
    cos, sin = torch.cos(omega * t), torch.sin(omega * t)
    return torch.stack([x0 * cos + v0 / omega * sin, v0 * cos - x0 * omega * sin], -1)


def oscillating_growth(t_span: tuple[float, float] = (0.0, 10.0)) -> ODEProblem:
    r"""Non-autonomous $y' = y \cos t,\; y(0) = 1$ with the exact solution $e^{\sin t}$, when started at time 0."""
    return ODEProblem(_oscillating_growth, _state([1.0]), t_span)


def oscillating_growth_solution(t: Tensor) -> Tensor:
    """Exact state at the times `t` of `oscillating_growth`, shape `(*t.shape, 1)`."""
    return torch.exp(torch.sin(t)).unsqueeze(-1)


def logistic(y0: float = 0.1, t_span: tuple[float, float] = (0.0, 10.0), *, rate: float = 1.0) -> ODEProblem:
    r"""Logistic growth $y' = r\,y\,(1 - y)$; `logistic_solution` is its exact solution."""
    return ODEProblem(_logistic, _state([y0]), t_span, _state([rate]))


def logistic_solution(t: Tensor, y0: float = 0.1, *, rate: float = 1.0) -> Tensor:
    """Exact state at the times `t` of `logistic` started in `y0` at time 0, shape `(*t.shape, 1)`."""
    return (y0 / (y0 + (1 - y0) * torch.exp(-rate * t))).unsqueeze(-1)


def lotka_volterra(
    y0: Sequence[float] = (1.0, 1.0),
    t_span: tuple[float, float] = (0.0, 10.0),
    *,
    p: Sequence[float] = (1.5, 1.0, 3.0, 1.0),
) -> ODEProblem:
    r"""Predator and prey, $x' = \alpha x - \beta x y,\; y' = -\gamma y + \delta x y$.

    Args:
        y0: Prey and predators at the start.
        t_span: Start and end time.
        p: $(\alpha, \beta, \gamma, \delta)$, each per time unit (and per animal for $\beta, \delta$).

    Example:
        >>> problem = lotka_volterra()
        >>> problem.vector_field(0.0, problem.y0, problem.p)
        tensor([ 0.5000, -2.0000], dtype=torch.float64)
    """
    return ODEProblem(_lotka_volterra, _state(y0), t_span, _state(p))


def lotka_volterra_paper(t_span: tuple[float, float] = (0.0, 3.0)) -> ODEProblem:
    """Predator and prey with the constants and the initial state of the universal differential equations paper.

    Reference:
        Rackauckas et al. (2020), "Universal differential equations for scientific machine learning".
    """
    return lotka_volterra((0.44249296, 4.6280594), t_span, p=(1.3, 0.9, 1.8, 0.8))


def van_der_pol(
    y0: Sequence[float] = (2.0, 0.0), t_span: tuple[float, float] = (0.0, 10.0), *, mu: float = 2.0
) -> ODEProblem:
    r"""Oscillator of van der Pol, $x' = v,\; v' = \mu (1 - x^2) v - x$; stiff for large $\mu$."""
    return ODEProblem(_van_der_pol, _state(y0), t_span, _state([mu]))


def lorenz(
    y0: Sequence[float] = (1.0, 1.0, 1.0),
    t_span: tuple[float, float] = (0.0, 10.0),
    *,
    p: Sequence[float] = (10.0, 28.0, 8.0 / 3.0),
) -> ODEProblem:
    r"""Convection of Lorenz, $x' = \sigma(y - x),\; y' = x(\rho - z) - y,\; z' = xy - \beta z$.

    Chaotic: errors grow about e-fold per time unit, so compare solutions over a short interval.

    Args:
        y0: State at the start.
        t_span: Start and end time.
        p: $(\sigma, \rho, \beta)$.

    Reference:
        Lorenz (1963), "Deterministic nonperiodic flow", equations 25-27.
    """
    return ODEProblem(_lorenz, _state(y0), t_span, _state(p))


def damped_cubic(y0: Sequence[float] = (2.0, 0.0), t_span: tuple[float, float] = (0.0, 10.0)) -> ODEProblem:
    r"""Damped oscillator with cubic dynamics, $x' = -0.1x^3 + 2y^3,\; y' = -2x^3 - 0.1y^3$.

    Reference:
        Brunton, Proctor and Kutz (2016), "Discovering governing equations from data by sparse identification".
    """
    return ODEProblem(_damped_cubic, _state(y0), t_span, _state([-0.1, 2.0]))


def fitzhugh_nagumo(
    y0: Sequence[float] = (-1.0, 1.0),
    t_span: tuple[float, float] = (0.0, 50.0),
    *,
    p: Sequence[float] = (0.7, 0.8, 12.5, 0.5),
) -> ODEProblem:
    r"""Excitable membrane, $v' = v - v^3/3 - w + I,\; \tau w' = v + a - b w$ with $p = (a, b, \tau, I)$."""
    return ODEProblem(_fitzhugh_nagumo, _state(y0), t_span, _state(p))


ARENSTORF_PERIOD = 17.0652165601579625588917206249
"""Period of the orbit of `arenstorf`: after it the state has returned to the start."""


def arenstorf(t_span: tuple[float, float] = (0.0, ARENSTORF_PERIOD)) -> ODEProblem:
    """Periodic orbit of the restricted three-body problem of Earth and Moon, state `(x, y, x', y')`.

    Needs steps that differ in size by orders of magnitude, and ends where it started.

    Reference:
        Hairer, Norsett and Wanner (1993), "Solving ordinary differential equations I", section II.0.
    """
    y0 = (0.994, 0.0, 0.0, -2.00158510637908252240537862224)
    return ODEProblem(_arenstorf, _state(y0), t_span, _state([0.012277471]))


def _state(values: Sequence[float]) -> Tensor:
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


def _harmonic_oscillator(t: object, y: Tensor, p: Tensor) -> Tensor:
    x, v = y.unbind(-1)
    return torch.stack([v, -p[..., 0].square() * x], -1)


def _oscillating_growth(t: float | Tensor, y: Tensor) -> Tensor:
    return y * torch.cos(t) if isinstance(t, Tensor) else y * math.cos(t)


def _logistic(t: object, y: Tensor, p: Tensor) -> Tensor:
    return p * y * (1 - y)


def _lotka_volterra(t: object, y: Tensor, p: Tensor) -> Tensor:
    x, z = y.unbind(-1)
    alpha, beta, gamma, delta = p.unbind(-1)
    return torch.stack([alpha * x - beta * x * z, -gamma * z + delta * x * z], -1)


def _van_der_pol(t: object, y: Tensor, p: Tensor) -> Tensor:
    x, v = y.unbind(-1)
    return torch.stack([v, p[..., 0] * (1 - x * x) * v - x], -1)


def _lorenz(t: object, y: Tensor, p: Tensor) -> Tensor:
    x, v, z = y.unbind(-1)
    sigma, rho, beta = p.unbind(-1)
    return torch.stack([sigma * (v - x), x * (rho - z) - v, x * v - beta * z], -1)


def _damped_cubic(t: object, y: Tensor, p: Tensor) -> Tensor:
    x, v = y.pow(3).unbind(-1)
    damping, rotation = p.unbind(-1)
    return torch.stack([damping * x + rotation * v, -rotation * x + damping * v], -1)


def _fitzhugh_nagumo(t: object, y: Tensor, p: Tensor) -> Tensor:
    v, w = y.unbind(-1)
    a, b, tau, current = p.unbind(-1)
    return torch.stack([v - v.pow(3) / 3 - w + current, (v + a - b * w) / tau], -1)


def _arenstorf(t: object, y: Tensor, p: Tensor) -> Tensor:
    x, z, vx, vz = y.unbind(-1)
    mu = p[..., 0]
    earth = ((x + mu).square() + z.square()).pow(1.5)
    moon = ((x - (1 - mu)).square() + z.square()).pow(1.5)
    ax = x + 2 * vz - (1 - mu) * (x + mu) / earth - mu * (x - (1 - mu)) / moon
    az = z - 2 * vx - (1 - mu) * z / earth - mu * z / moon
    return torch.stack([vx, vz, ax, az], -1)
