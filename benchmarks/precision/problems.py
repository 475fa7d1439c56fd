"""Seven standard problems, written once for torch, NumPy and JAX: `field(xp, t, y)` with the array module first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """An initial value problem with what is run on it.

    Args:
        name: As in the table.
        field: `field(xp, t, y)`.
        y0: Initial state.
        t1: End; the start is 0.
        is_stiff: Explicit methods are left out.
        reference: SciPy's method for the reference solution.
        scales: Typical size of every component, for `atol`; None for 1.
    """

    name: str
    field: Callable[[Any, Any, Any], Any]
    y0: tuple[float, ...]
    t1: float
    is_stiff: bool
    reference: str = "DOP853"
    scales: tuple[float, ...] | None = None


def lotka_volterra(xp, t, y):
    return xp.stack([1.5 * y[0] - y[0] * y[1], -3.0 * y[1] + y[0] * y[1]])


def lorenz(xp, t, y):
    return xp.stack([10.0 * (y[1] - y[0]), y[0] * (28.0 - y[2]) - y[1], y[0] * y[1] - 8.0 / 3.0 * y[2]])


def van_der_pol(xp, t, y):
    return xp.stack([y[1], 1000.0 * (1.0 - y[0] ** 2) * y[1] - y[0]])


def robertson(xp, t, y):
    slow, fast, fastest = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return xp.stack([-slow + fast, slow - fast - fastest, fastest])


def hires(xp, t, y):
    """High irradiance response; Hairer and Wanner (1996), section IV.10."""
    bound = 280.0 * y[5] * y[7]
    return xp.stack(
        [
            -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
            1.71 * y[0] - 8.75 * y[1],
            -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
            8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
            -1.745 * y[4] + 0.43 * y[5] + 0.43 * y[6],
            -bound + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
            bound - 1.81 * y[6],
            -bound + 1.81 * y[6],
        ]
    )


def pleiades(xp, t, y):
    """Seven stars in a plane, masses 1 to 7; Hairer, Norsett and Wanner (1993), section II.10."""
    x, z, speeds = y[:7], y[7:14], y[14:]
    dx, dz = x[None, :] - x[:, None], z[None, :] - z[:, None]
    distance = (dx**2 + dz**2 + xp.eye(7)) ** 1.5
    pull = xp.arange(1.0, 8.0)[None, :] / distance
    return xp.concatenate([speeds, (pull * dx).sum(1), (pull * dz).sum(1)])


POINTS = 20


def brusselator(xp, t, y):
    """Diffusing Brusselator on 20 interior points; Hairer and Wanner (1996), section IV.1, alpha = 1/50."""
    u, v = y[:POINTS], y[POINTS:]
    diffusion = (POINTS + 1) ** 2 / 50.0
    one = xp.ones(1)
    wide_u, wide_v = xp.concatenate([one, u, one]), xp.concatenate([3.0 * one, v, 3.0 * one])
    reaction = u**2 * v
    return xp.concatenate(
        [
            1.0 + reaction - 4.0 * u + diffusion * (wide_u[:-2] - 2.0 * u + wide_u[2:]),
            3.0 * u - reaction + diffusion * (wide_v[:-2] - 2.0 * v + wide_v[2:]),
        ]
    )


def _brusselator_start():
    import math

    points = [(i + 1) / (POINTS + 1) for i in range(POINTS)]
    return tuple([1.0 + math.sin(2.0 * math.pi * x) for x in points] + [3.0] * POINTS)


PLEIADES_START = (
    *(3.0, 3.0, -1.0, -3.0, 2.0, -2.0, 2.0),
    *(3.0, -3.0, 2.0, 0.0, 0.0, -4.0, 4.0),
    *(0.0, 0.0, 0.0, 0.0, 0.0, 1.75, -1.5),
    *(0.0, 0.0, 0.0, -1.25, 1.0, 0.0, 0.0),
)

PROBLEMS = (
    Problem("Lotka-Volterra", lotka_volterra, (1.0, 1.0), 10.0, is_stiff=False),
    Problem("Lorenz", lorenz, (1.0, 1.0, 1.0), 5.0, is_stiff=False),
    Problem("Pleiades", pleiades, PLEIADES_START, 3.0, is_stiff=False),
    Problem("van der Pol, mu = 1000", van_der_pol, (2.0, 0.0), 2000.0, is_stiff=True, reference="Radau"),
    Problem("HIRES", hires, (1.0, *[0.0] * 6, 0.0057), 321.8122, is_stiff=True, reference="Radau"),
    Problem("Robertson", robertson, (1.0, 0.0, 0.0), 1e5, is_stiff=True, reference="Radau", scales=(1.0, 1e-5, 1.0)),
    Problem("Brusselator", brusselator, _brusselator_start(), 10.0, is_stiff=True, reference="Radau"),
)
