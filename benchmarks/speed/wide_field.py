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


def run(*, smoke: bool) -> list[Row]:
    from torchdiffeq import odeint

    batch, size, width = (4, 8, 4) if smoke else (512, 784, 100)
    torch.manual_seed(0)
    network, y0 = Field(size, width), torch.randn(batch, size)
    ends = torch.tensor([0.0, 1.0])

    def ours(*, gradient):
        with torch.set_grad_enabled(gradient):
            ys = ude.solve(
                ude.ODEProblem(network, y0, (0.0, 1.0)),
                ude.Dopri5(),
                save_at=ends[1:],
                rtol=1e-5,
                atol=1e-5,
                dense=False,
            ).ys
            return torch.autograd.grad(ys.square().mean(), list(network.parameters())) if gradient else ys

    def theirs(*, gradient):
        with torch.set_grad_enabled(gradient):
            ys = odeint(network, y0, ends, rtol=1e-5, atol=1e-5, method="dopri5")[1:]
            return torch.autograd.grad(ys.square().mean(), list(network.parameters())) if gradient else ys

    rows = []
    for name, gradient in (("forward", False), ("gradient", True)):
        seconds = side_by_side(
            {"ours": lambda g=gradient: ours(gradient=g), "torchdiffeq": lambda g=gradient: theirs(gradient=g)},
            repeats=1 if smoke else 5,
            warm_up=1,
        )
        rows.append(
            Row(
                task=f"{size}-{width}-{size}, batch {batch}, dopri5, tolerance 1e-5, float32, {name}, eager",
                ours=seconds["ours"],
                peer=seconds["torchdiffeq"],
                peer_name="torchdiffeq",
                target=">= 1.5" if gradient else "",
            )
        )
    return rows
