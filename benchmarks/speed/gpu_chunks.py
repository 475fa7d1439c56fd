"""van der Pol, mu = 2, over one cycle on a GPU: chunks of attempts as CUDA graphs against the other engines and peers.

Without a GPU there is nothing to measure: the smoke run makes the same chunks on the CPU, without a graph.
"""

from __future__ import annotations

import torch

import ude
from benchmarks.speed.measure import Row, against_peers, once, side_by_side
from benchmarks.speed.van_der_pol import PERIOD, field, starts
from ude.solve.replayed import Replayed

TOLERANCES = {"rtol": 1e-5, "atol": 1e-5}


def case(batch, device, repeats):
    from torchdiffeq import odeint

    y0, ts = starts(batch).to(device), torch.linspace(0.0, PERIOD, 50, device=device)
    problem = ude.ODEProblem(field, y0, (0.0, PERIOD), batched=True)
    engines = {"graphs of 8": Replayed(), "graphs of 16": Replayed(chunk=16), "compiled": ude.Compiled()}

    def finished(solve):
        def run():
            with torch.no_grad():
                solve()
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    def ours(engine):
        return finished(lambda: ude.solve(problem, ude.Dopri5(), save_at=ts, engine=engine, dense=False, **TOLERANCES))

    runs = {name: ours(engine) for name, engine in engines.items()}
    runs["eager"] = ours("eager")
    runs["torchdiffeq"] = finished(lambda: odeint(field, y0, ts, method="dopri5", **TOLERANCES))
    first = {name: once(runs[name]) for name in engines}
    seconds = side_by_side(runs, repeats)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    task = f"van der Pol, batch {batch}, 50 outputs, {name}"
    notes = {name: f"first call {seconds:.1f} s" for name, seconds in first.items()}
    return against_peers(task, seconds, engines, notes=notes)


def run(*, smoke: bool) -> list[Row]:
    if not torch.cuda.is_available():
        return case(8, "cpu", repeats=1) if smoke else []
    return [row for batch in ((8,) if smoke else (256, 4096, 65_536)) for row in case(batch, "cuda", 1 if smoke else 9)]
