"""Loop overhead: van der Pol, mu = 2, 256 starting points over half a cycle, one cycle, tolerance 1e-5, float32."""

from __future__ import annotations

import torch

import ude
from benchmarks.speed.measure import Row, against_peers, once, side_by_side

MU, PERIOD = 2.0, 7.6297  # the period for mu = 2


def field(t, y):
    x, v = y.unbind(-1)
    return torch.stack([v, MU * (1 - x * x) * v - x], dim=-1)


def starts(batch):
    """Points evenly spread over half a cycle."""
    cycle = ude.solve(
        ude.ODEProblem(field, torch.tensor([2.0, 0.0], dtype=torch.float64), (0.0, PERIOD / 2)),
        ude.Dopri5(),
        save_at=torch.linspace(0, PERIOD / 2, batch, dtype=torch.float64),
        rtol=1e-9,
        atol=1e-9,
    )
    return cycle.ys.float()


def case(batch, repeats):
    from torchdiffeq import odeint

    y0, ends = starts(batch), torch.tensor([0.0, PERIOD])
    problem = ude.ODEProblem(field, y0, (0.0, PERIOD), batched=True)
    counts = {}
    engines = {
        "compiled": ude.Compiled(),
        "compiled, unroll=8": ude.Compiled(unroll=8, check_every=8),
        "eager": "eager",
    }

    def ours(name):
        def run():
            solution = ude.solve(
                problem, ude.Dopri5(), save_at=ends[1:], rtol=1e-5, atol=1e-5, engine=engines[name], dense=False
            )
            counts[name] = solution.steps.t.shape[0]

        return run

    def theirs():
        calls = 0

        def counted(t, y):
            nonlocal calls
            calls += 1
            return field(t, y)

        odeint(counted, y0, ends, rtol=1e-5, atol=1e-5, method="dopri5")
        counts["torchdiffeq"] = (calls - 2) // 6

    with torch.no_grad():
        compile_seconds = {name: once(ours(name)) for name in engines if name != "eager"}
        seconds = side_by_side({name: ours(name) for name in engines} | {"torchdiffeq": theirs}, repeats)
    notes = {}
    for engine in engines:
        notes[engine] = f"per attempted step; {counts[engine]} against {counts['torchdiffeq']} steps"
        if engine in compile_seconds:
            notes[engine] += f"; compile {compile_seconds[engine]:.1f} s once"
    return against_peers(
        f"van der Pol step, batch {batch}",
        {name: seconds[name] / counts[name] for name in seconds},
        engines,
        targets={("compiled, unroll=8", "torchdiffeq"): ">= 10"} if batch == 256 else {},
        notes=notes,
    )


def run(*, smoke: bool) -> list[Row]:
    if smoke:
        return case(8, repeats=1)
    return [row for batch in (256, 4096) for row in case(batch, repeats=9)]
