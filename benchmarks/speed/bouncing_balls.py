"""10,000 bouncing balls with the gradient by the restitution, against the same solve without events."""

from __future__ import annotations

import torch

import ude
from benchmarks.speed.measure import Row, side_by_side


def falling(t, y):
    return torch.stack([y[..., 1], torch.full_like(y[..., 0], -9.81)], dim=-1)


def solve(heights, restitution, *, bounces):
    start = torch.stack([heights, torch.zeros_like(heights)], dim=-1)
    bounce = ude.ContinuousEvent(
        condition=lambda t, y: y[..., 0],
        affect=lambda t, y: torch.stack([torch.zeros_like(y[..., 0]), -restitution * y[..., 1]], dim=-1),
        direction=-1,
    )
    # Steps of the same length with and without events: a parabola alone would be one step.
    return ude.solve(
        ude.ODEProblem(falling, start * (1.0 + 0.0 * restitution), (0.0, 2.0), batched=True),
        ude.Tsit5(),
        save_at=[2.0],
        max_step=0.1,
        events=[bounce] if bounces else [],
    ).ys


def gradient(heights, restitution, *, bounces):
    return torch.autograd.grad(solve(heights, restitution, bounces=bounces).sum(), restitution)[0]


def run(*, smoke: bool) -> list[Row]:
    count = 10 if smoke else 10_000
    heights = torch.linspace(0.5, 3.0, count, dtype=torch.float64)
    restitution = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    seconds = side_by_side(
        {name: lambda b=name == "with": gradient(heights, restitution, bounces=b) for name in ("with", "without")},
        repeats=1 if smoke else 5,
        warm_up=1,
    )
    return [
        Row(
            task=f"{count} bouncing balls, gradient by the restitution, float64, eager",
            ours=seconds["with"],
            peer=seconds["without"],
            peer_name="the same solve without events",
            target=">= 1/3",
            note=f"{seconds['with'] / seconds['without']:.1f} times the cost; steps of at most 0.1 in both",
        )
    ]
