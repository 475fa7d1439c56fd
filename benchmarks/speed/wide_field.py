"""A field of the size of an image, batch 512, 784-100-784: where the field and the combinations of stages cost."""

from __future__ import annotations

import torch

import ude
from benchmarks.speed import jax_peers
from benchmarks.speed.measure import Row, against_peers, installed, side_by_side

TOLERANCES = {"rtol": 1e-5, "atol": 1e-5}


class Field(torch.nn.Module):
    def __init__(self, size, width):
        super().__init__()
        self.into, self.out = torch.nn.Linear(size, width), torch.nn.Linear(width, size)

    def forward(self, t, y):
        return torch.tanh(self.out(torch.tanh(self.into(y))))


def diffrax_run(network, y0, *, gradient):
    """The same solve or gradient by jitted diffrax, the batch as one state."""
    jax = jax_peers.configured(y0.dtype)
    weights, start = jax_peers.layer_weights(network), jax_peers.array(y0)
    end = jax_peers.diffrax_dopri5(lambda t, y, w: jax.numpy.tanh(jax_peers.network(w, y)), (0.0, 1.0), **TOLERANCES)
    if gradient:
        return jax_peers.jitted(jax.grad(lambda w: (end(start, w) ** 2).mean()), weights)
    return jax_peers.jitted(lambda w: end(start, w), weights)


def run(*, smoke: bool) -> list[Row]:
    from torchdiffeq import odeint

    batch, size, width = (4, 8, 4) if smoke else (512, 784, 100)
    torch.manual_seed(0)
    network, y0 = Field(size, width), torch.randn(batch, size)
    ends = torch.tensor([0.0, 1.0])

    def ours(engine, *, gradient):
        with torch.set_grad_enabled(gradient):
            ys = ude.solve(
                ude.ODEProblem(network, y0, (0.0, 1.0)),
                ude.Dopri5(),
                save_at=ends[1:],
                dense=False,
                engine=engine,
                **TOLERANCES,
            ).ys
            return torch.autograd.grad(ys.square().mean(), list(network.parameters())) if gradient else ys

    def theirs(*, gradient):
        with torch.set_grad_enabled(gradient):
            ys = odeint(network, y0, ends, method="dopri5", **TOLERANCES)[1:]
            return torch.autograd.grad(ys.square().mean(), list(network.parameters())) if gradient else ys

    rows, engines = [], ("eager", "compiled")
    for name, gradient in (("forward", False), ("gradient", True)):
        runs = {engine: lambda e=engine, g=gradient: ours(e, gradient=g) for engine in engines}
        runs["torchdiffeq"] = lambda g=gradient: theirs(gradient=g)
        runs |= installed({"diffrax (jit)": lambda g=gradient: diffrax_run(network, y0, gradient=g)})
        seconds = side_by_side(runs, repeats=1 if smoke else 5, warm_up=1)
        targets = {"torchdiffeq": ">= 1.5", "diffrax (jit)": ">= 1"} if gradient else {}
        rows += against_peers(
            f"{size}-{width}-{size}, batch {batch}, dopri5, tolerance 1e-5, float32, {name}",
            seconds,
            engines,
            targets={(engine, peer): target for engine in engines for peer, target in targets.items()},
        )
    return rows
