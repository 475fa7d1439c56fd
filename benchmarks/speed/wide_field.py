"""A field of the size of an image, batch 512, 784-100-784: where the field and the combinations of stages cost."""

from __future__ import annotations

import torch

import ude
from benchmarks.speed.measure import Row, side_by_side


class Field(torch.nn.Module):
    def __init__(self, size, width):
        super().__init__()
        self.into, self.out = torch.nn.Linear(size, width), torch.nn.Linear(width, size)

    def forward(self, t, y):
        return torch.tanh(self.out(torch.tanh(self.into(y))))


def diffrax_runs(network, y0):
    """The same solve and gradient by jitted diffrax, the batch as one state; empty where it is not installed."""
    try:
        import diffrax
        import jax
        import jax.numpy as jnp
    except ImportError:
        return {}
    jax.config.update("jax_enable_x64", False)
    weights = [
        (jnp.asarray(x.weight.detach().numpy()), jnp.asarray(x.bias.detach().numpy())) for x in network.children()
    ]
    start = jnp.asarray(y0.numpy())

    def field(t, y, w):
        for a, b in w:
            y = jnp.tanh(y @ a.T + b)
        return y

    def end(w):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Dopri5(),
            0.0,
            1.0,
            None,
            start,
            w,
            stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5),
        ).ys

    forward, gradient = jax.jit(end), jax.jit(jax.grad(lambda w: (end(w) ** 2).mean()))
    return {
        "forward": lambda: jax.block_until_ready(forward(weights)),
        "gradient": lambda: jax.block_until_ready(gradient(weights)),
    }


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
                rtol=1e-5,
                atol=1e-5,
                dense=False,
                engine=engine,
            ).ys
            return torch.autograd.grad(ys.square().mean(), list(network.parameters())) if gradient else ys

    def theirs(*, gradient):
        with torch.set_grad_enabled(gradient):
            ys = odeint(network, y0, ends, rtol=1e-5, atol=1e-5, method="dopri5")[1:]
            return torch.autograd.grad(ys.square().mean(), list(network.parameters())) if gradient else ys

    rows, peers = [], diffrax_runs(network, y0)
    engines = ("eager", "compiled")
    for name, gradient in (("forward", False), ("gradient", True)):
        runs = {engine: lambda e=engine, g=gradient: ours(e, gradient=g) for engine in engines}
        runs["torchdiffeq"] = lambda g=gradient: theirs(gradient=g)
        if peers:
            runs["diffrax (jit)"] = peers[name]
        seconds = side_by_side(runs, repeats=1 if smoke else 5, warm_up=1)
        rows += [
            Row(
                task=f"{size}-{width}-{size}, batch {batch}, dopri5, tolerance 1e-5, float32, {name}, {engine}",
                ours=seconds[engine],
                peer=seconds[peer],
                peer_name=peer,
                target=(">= 1.5" if peer == "torchdiffeq" else ">= 1") if gradient else "",
            )
            for engine in engines
            for peer in ("torchdiffeq", "diffrax (jit)")
            if peer in seconds
        ]
    return rows
