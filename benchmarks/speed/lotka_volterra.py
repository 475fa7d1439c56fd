"""Gradient of a Lotka-Volterra universal differential equation: the inner loop of every fit.

x' = 1.3 x + U1(x, y), y' = -1.8 y + U2(x, y) on [0, 3], 31 save points, rtol = atol = 1e-6, loss = sum of squares.
"""

from __future__ import annotations

import torch
from torch import nn

import ude
from benchmarks.speed import jax_peers
from benchmarks.speed.measure import Row, against_peers, gradient_gap, installed, once, side_by_side

Y0 = (0.44249296, 4.6280594)
END = 3.0
TOLERANCES = {"rtol": 1e-6, "atol": 1e-6}
SHAPES = {"2-5-5-5-2 rbf": ((5, 5, 5), "rbf"), "2-32-32-2 tanh": ((32, 32), "tanh")}


class Rbf(nn.Module):
    def forward(self, x):
        return torch.exp(-x * x)


class Field(nn.Module):
    """Plain PyTorch, as a torchdiffeq user writes it; all libraries here share its weights."""

    def __init__(self, hidden, activation, dtype):
        super().__init__()
        torch.manual_seed(0)
        layers, width = [], 2
        for h in hidden:
            layers += [nn.Linear(width, h), Rbf() if activation == "rbf" else nn.Tanh()]
            width = h
        self.net = nn.Sequential(*layers, nn.Linear(width, 2)).to(dtype)
        self.register_buffer("rates", torch.tensor([1.3, -1.8], dtype=dtype))
        with torch.no_grad():  # a small unknown term, so that every library integrates the same tame trajectory
            self.net[-1].weight.mul_(0.1)

    def forward(self, t, y):
        return self.rates * y + self.net(y)


def diffrax_gradient(field, y0, ts):
    """The same gradient by jitted diffrax."""
    jax = jax_peers.configured(y0.dtype)
    rates, start = jax_peers.array(field.rates), jax_peers.array(y0)
    activation = (lambda x: jax.numpy.exp(-x * x)) if isinstance(field.net[1], Rbf) else jax.numpy.tanh

    def vector_field(t, y, w):
        return rates * y + jax_peers.network(w, y, activation)

    states = jax_peers.diffrax_dopri5(vector_field, (0.0, END), ts, first_step=0.05, **TOLERANCES)
    return jax_peers.jitted(jax.grad(lambda w: (states(start, w) ** 2).sum()), jax_peers.layer_weights(field))


def case(name, dtype, repeats):
    from torchdiffeq import odeint

    hidden, activation = SHAPES[name]
    field = Field(hidden, activation, dtype)
    y0, ts = torch.tensor(Y0, dtype=dtype), torch.linspace(0.0, END, 31, dtype=dtype)
    problem = ude.ODEProblem(field, y0, (0.0, END))

    def ours(engine):
        def run():
            field.zero_grad()
            solution = ude.solve(problem, ude.Dopri5(), save_at=ts, engine=engine, dense=False, **TOLERANCES)
            (solution.ys**2).sum().backward()
            return solution

        return run

    def theirs():
        field.zero_grad()
        (odeint(field, y0, ts, method="dopri5", **TOLERANCES) ** 2).sum().backward()

    engines = ("loop", "compiled", "eager")
    first = {engine: once(ours(engine)) for engine in engines}
    runs = {engine: ours(engine) for engine in engines} | {"torchdiffeq": theirs}
    runs |= installed({"diffrax": lambda: diffrax_gradient(field, y0, ts)})
    seconds = side_by_side(runs, repeats)
    steps = int(ours("loop")().stats.accepted)
    note = f"{steps} steps; gradients differ by {gradient_gap(field, ours('loop'), theirs):.0e}"
    return against_peers(
        f"LV gradient, {name}, {str(dtype).removeprefix('torch.')}",
        seconds,
        engines,
        targets={("loop", "torchdiffeq"): ">= 25", ("loop", "diffrax"): "printed"},
        notes={engine: f"first call {first[engine]:.1f} s; {note}" for engine in engines},
    )


def run(*, smoke: bool) -> list[Row]:
    if smoke:
        return case("2-32-32-2 tanh", torch.float32, repeats=1)
    return [row for name in SHAPES for dtype in (torch.float32, torch.float64) for row in case(name, dtype, repeats=15)]
