"""Gradient of a Lotka-Volterra universal differential equation: the inner loop of every fit.

x' = 1.3 x + U1(x, y), y' = -1.8 y + U2(x, y) on [0, 3], 31 save points, rtol = atol = 1e-6, loss = sum of squares.
"""

from __future__ import annotations

import torch
from torch import nn

import ude
from benchmarks.speed.measure import Row, once, side_by_side

Y0 = (0.44249296, 4.6280594)
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
    """The same gradient by jitted diffrax, or None where it is not installed."""
    try:
        import diffrax
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", y0.dtype == torch.float64)
    weights = [
        (jnp.asarray(m.weight.detach().numpy()), jnp.asarray(m.bias.detach().numpy()))
        for m in field.net
        if isinstance(m, nn.Linear)
    ]
    activation = (lambda x: jnp.exp(-x * x)) if isinstance(field.net[1], Rbf) else jnp.tanh
    rates, start, times = (jnp.asarray(v.numpy()) for v in (field.rates, y0, ts))

    def vector_field(t, y, w):
        x = y
        for W, b in w[:-1]:
            x = activation(W @ x + b)
        return rates * y + w[-1][0] @ x + w[-1][1]

    def loss(w):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(vector_field),
            diffrax.Dopri5(),
            times[0],
            times[-1],
            0.05,
            start,
            w,
            saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
        )
        return (solution.ys**2).sum()

    gradient = jax.jit(jax.grad(loss))
    return lambda: jax.block_until_ready(gradient(weights))


def case(name, dtype, repeats):
    from torchdiffeq import odeint

    hidden, activation = SHAPES[name]
    field = Field(hidden, activation, dtype)
    y0, ts = torch.tensor(Y0, dtype=dtype), torch.linspace(0, 3, 31, dtype=dtype)
    problem = ude.ODEProblem(field, y0, (0.0, 3.0))

    def ours(engine):
        def run():
            field.zero_grad()
            solution = ude.solve(problem, ude.Dopri5(), save_at=ts, rtol=1e-6, atol=1e-6, engine=engine, dense=False)
            (solution.ys**2).sum().backward()
            return solution

        return run

    def theirs():
        field.zero_grad()
        (odeint(field, y0, ts, rtol=1e-6, atol=1e-6, method="dopri5") ** 2).sum().backward()

    engines = ("loop", "compiled", "eager")
    first = {engine: once(ours(engine)) for engine in engines}
    runs = {engine: ours(engine) for engine in engines} | {"torchdiffeq": theirs}
    diffrax = diffrax_gradient(field, y0, ts)
    if diffrax:
        runs["diffrax"] = diffrax
    seconds = side_by_side(runs, repeats)
    theirs()
    reference = torch.cat([p.grad.flatten() for p in field.parameters()])
    solution = ours("loop")()
    gap = (torch.cat([p.grad.flatten() for p in field.parameters()]) - reference).norm() / reference.norm()
    width = str(dtype).removeprefix("torch.")
    task = f"LV gradient, {name}, {width}"
    note = f"{int(solution.stats.accepted)} steps; gradients differ by {float(gap):.0e}"
    return [
        Row(
            task=f"{task}, {engine}",
            ours=seconds[engine],
            peer=seconds[peer],
            peer_name=peer,
            target=(">= 25" if peer == "torchdiffeq" else "printed") if engine == "loop" else "",
            note=f"first call {first[engine]:.1f} s; {note}" if peer == "torchdiffeq" else "",
        )
        for engine in engines
        for peer in ("torchdiffeq", "diffrax")
        if peer in seconds
    ]


def run(*, smoke: bool) -> list[Row]:
    if smoke:
        return case("2-32-32-2 tanh", torch.float32, repeats=1)
    return [row for name in SHAPES for dtype in (torch.float32, torch.float64) for row in case(name, dtype, repeats=15)]
