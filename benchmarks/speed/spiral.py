"""Gradient of the spiral of the DiffEqFlux comparison: y' = y**3 A, a 2-50-2 tanh network of y**3 in its place.

y0 = (2, 0), 30 states on [0, 1.5], the default tolerances of torchdiffeq; solve, mean squared error, backward.

Reference:
    docs/src/Benchmark.md of SciMLSensitivity.jl, "Vs Torchdiffeq 1 million and less ODEs", neural ODE training.
"""

from __future__ import annotations

import torch
from torch import nn

import ude
from benchmarks.speed import jax_peers
from benchmarks.speed.measure import Row, against_peers, gradient_gap, installed, once, side_by_side

MATRIX = ((-0.1, 2.0), (-2.0, -0.1))
START = (2.0, 0.0)
END, TIMES = 1.5, 30
TOLERANCES = {"rtol": 1e-7, "atol": 1e-9}


class Field(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2)).to(dtype)

    def forward(self, t, y):
        return self.net(y**3)


def data(dtype):
    """Initial state, times, and the states of the true equation."""
    matrix, y0 = (torch.tensor(x, dtype=dtype) for x in (MATRIX, START))
    ts = torch.linspace(0.0, END, TIMES, dtype=dtype)
    true = ude.ODEProblem(lambda t, y: y**3 @ matrix, y0, (0.0, END))
    return y0, ts, ude.solve(true, ude.Tsit5(), save_at=ts, rtol=1e-6, atol=1e-8).ys


def diffrax_gradient(field, y0, ts, wanted):
    """The same gradient by jitted diffrax."""
    jax = jax_peers.configured(y0.dtype)
    states = jax_peers.diffrax_dopri5(lambda t, y, w: jax_peers.network(w, y**3), (0.0, END), ts, **TOLERANCES)
    start, target = jax_peers.array(y0), jax_peers.array(wanted)
    return jax_peers.jitted(
        jax.grad(lambda w: ((states(start, w) - target) ** 2).mean()), jax_peers.layer_weights(field)
    )


def case(dtype, repeats, engines):
    from torchdiffeq import odeint

    field = Field(dtype)
    y0, ts, wanted = data(dtype)
    problem = ude.ODEProblem(field, y0, (0.0, END))

    def ours(engine):
        def run():
            field.zero_grad()
            solution = ude.solve(problem, ude.Dopri5(), save_at=ts, engine=engine, dense=False, **TOLERANCES)
            ((solution.ys - wanted) ** 2).mean().backward()

        return run

    def theirs():
        field.zero_grad()
        ((odeint(field, y0, ts, method="dopri5", **TOLERANCES) - wanted) ** 2).mean().backward()

    first = {engine: once(ours(engine)) for engine in engines}
    runs = {engine: ours(engine) for engine in engines} | {"torchdiffeq": theirs}
    runs |= installed({"diffrax (jit)": lambda: diffrax_gradient(field, y0, ts, wanted)})
    seconds = side_by_side(runs, repeats)
    gap = gradient_gap(field, ours(engines[0]), theirs)
    return against_peers(
        f"spiral gradient, {str(dtype).removeprefix('torch.')}",
        seconds,
        engines,
        targets={("loop", "torchdiffeq"): ">= 25", ("loop", "diffrax (jit)"): "printed"},
        notes={engine: f"first call {first[engine]:.1f} s; gradients differ by {gap:.0e}" for engine in engines},
    )


def run(*, smoke: bool) -> list[Row]:
    if smoke:
        return case(torch.float32, repeats=1, engines=("loop",))
    engines = ("loop", "eager")
    return [row for dtype in (torch.float32, torch.float64) for row in case(dtype, repeats=15, engines=engines)]
