"""Training many replicates as one batch, against training a few one after the other."""

from __future__ import annotations

import torch

import ude
from benchmarks.speed.measure import Row, once
from ude.reproduce.lotka_volterra import known, measurements, network


def run(*, smoke: bool) -> list[Row]:
    many, few, iterations = (4, 2, 2) if smoke else (100, 5, 100)
    data = measurements(5e-3, torch.Generator().manual_seed(0))
    strategy = ude.SingleShooting(optimizers=(ude.Adam(iterations=iterations),))
    solver = ude.SolverOptions(halvings=0, engine="eager")

    def train(replicates):
        model = ude.UDE(known, network(), states=("x", "y"))
        generator = torch.Generator().manual_seed(1)
        ude.fit(model, data, strategy=strategy, replicates=replicates, solver=solver, generator=generator)

    train(1)
    together = once(lambda: train(many))
    in_turn = once(lambda: [train(1) for _ in range(few)])
    note = f"{iterations} Adam iterations each"
    return [
        Row(
            task=f"{many} replicates in one batch",
            ours=together,
            peer=in_turn,
            peer_name=f"{few} one after the other",
            target=">= 0.5",
            note=note,
        )
    ]
