"""van der Pol, mu = 2, over one cycle with 200 saved states: the loop engine against the peers' whole solves."""

from __future__ import annotations

import torch

import ude
from benchmarks.speed import jax_peers
from benchmarks.speed.measure import Row, against_peers, installed, once, side_by_side
from benchmarks.speed.van_der_pol import MU, PERIOD, field, starts

OUTPUTS = 200
TOLERANCES = {"rtol": 1e-5, "atol": 1e-5}


def diffrax_run(y0, ts):
    jax = jax_peers.configured(y0.dtype)

    def right_hand_side(t, y, w):
        return jax.numpy.stack([y[1], MU * (1 - y[0] ** 2) * y[1] - y[0]])

    states = jax_peers.diffrax_dopri5(right_hand_side, (0.0, PERIOD), ts, **TOLERANCES)
    return jax_peers.jitted(jax.vmap(states), jax_peers.array(y0))


def torchode_run(y0, ts):
    import torchode

    term = torchode.ODETerm(field)
    controller = torchode.IntegralController(term=term, **TOLERANCES)
    solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), controller)
    problem = torchode.InitialValueProblem(y0=y0, t_eval=ts.expand(len(y0), -1).contiguous())
    return lambda: solver.solve(problem)


def case(batch, repeats, engines):
    from torchdiffeq import odeint

    y0, ts = starts(batch), torch.linspace(0.0, PERIOD, OUTPUTS)
    problem = ude.ODEProblem(field, y0, (0.0, PERIOD), batched=True)

    def ours(engine):
        return lambda: ude.solve(problem, ude.Dopri5(), save_at=ts, engine=engine, dense=False, **TOLERANCES)

    runs = {engine: ours(engine) for engine in engines}
    runs["torchdiffeq"] = lambda: odeint(field, y0, ts, method="dopri5", **TOLERANCES)
    runs |= installed({"torchode": lambda: torchode_run(y0, ts), "diffrax (jit)": lambda: diffrax_run(y0, ts)})
    with torch.no_grad():
        first = {engine: once(runs[engine]) for engine in engines}
        seconds = side_by_side(runs, repeats)
    targets = {"torchdiffeq": ">= 30", "torchode": ">= 30", "diffrax (jit)": ">= 0.5" if batch == 256 else ">= 1"}
    return against_peers(
        f"van der Pol, batch {batch}, {OUTPUTS} outputs, whole solve",
        seconds,
        engines,
        targets={("loop", peer): target for peer, target in targets.items()},
        notes={engine: f"first call {first[engine]:.1f} s" for engine in engines},
    )


def run(*, smoke: bool) -> list[Row]:
    if smoke:
        return case(8, repeats=1, engines=("loop",))
    return [row for batch in (256, 4096) for row in case(batch, repeats=9, engines=("loop", "eager"))]
