"""Gradient of the spiral of the DiffEqFlux comparison: y' = y**3 A, a 2-50-2 tanh network of y**3 in its place.

y0 = (2, 0), 30 states on [0, 1.5], the default tolerances of torchdiffeq; solve, mean squared error, backward.

Reference:
    docs/src/Benchmark.md of SciMLSensitivity.jl, "Vs Torchdiffeq 1 million and less ODEs", neural ODE training.
"""

from __future__ import annotations

import torch
from torch import nn

import ude
from benchmarks.speed.measure import Row, once, side_by_side

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
        for m in (field.net[0], field.net[2])
    ]
    start, times, target = (jnp.asarray(x.numpy()) for x in (y0, ts, wanted))

    def vector_field(t, y, w):
        (a, b), (c, d) = w
        return c @ jnp.tanh(a @ y**3 + b) + d

    def loss(w):
        ys = diffrax.diffeqsolve(
            diffrax.ODETerm(vector_field),
            diffrax.Dopri5(),
            times[0],
            times[-1],
            None,
            start,
            w,
            saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(**TOLERANCES),
        ).ys
        return ((ys - target) ** 2).mean()

    gradient = jax.jit(jax.grad(loss))
    return lambda: jax.block_until_ready(gradient(weights))


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
            return solution

        return run

    def theirs():
        field.zero_grad()
        ((odeint(field, y0, ts, method="dopri5", **TOLERANCES) - wanted) ** 2).mean().backward()

    first = {engine: once(ours(engine)) for engine in engines}
    runs = {engine: ours(engine) for engine in engines} | {"torchdiffeq": theirs}
    diffrax = diffrax_gradient(field, y0, ts, wanted)
    if diffrax:
        runs["diffrax (jit)"] = diffrax
    seconds = side_by_side(runs, repeats)
    theirs()
    reference = torch.cat([p.grad.flatten() for p in field.parameters()])
    ours(engines[0])()
    gap = (torch.cat([p.grad.flatten() for p in field.parameters()]) - reference).norm() / reference.norm()
    width = str(dtype).removeprefix("torch.")
    return [
        Row(
            task=f"spiral gradient, {width}, {engine}",
            ours=seconds[engine],
            peer=seconds[peer],
            peer_name=peer,
            target=(">= 25" if peer == "torchdiffeq" else "printed") if engine == "loop" else "",
            note=f"first call {first[engine]:.1f} s; gradients differ by {float(gap):.0e}"
            if peer == "torchdiffeq"
            else "",
        )
        for engine in engines
        for peer in ("torchdiffeq", "diffrax (jit)")
        if peer in runs
    ]


def run(*, smoke: bool) -> list[Row]:
    if smoke:
        return case(torch.float32, repeats=1, engines=("loop",))
    engines = ("loop", "eager")
    return [row for dtype in (torch.float32, torch.float64) for row in case(dtype, repeats=15, engines=engines)]
