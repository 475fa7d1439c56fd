"""van der Pol, mu = 2, over one cycle with 200 saved states: the loop engine against the peers' whole solves."""

from __future__ import annotations

import torch

import ude
from benchmarks.speed.measure import Row, once, side_by_side
from benchmarks.speed.van_der_pol import MU, PERIOD, field, starts

OUTPUTS = 200


def diffrax_run(y0, ts):
    try:
        import diffrax
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    times, states = jnp.asarray(ts.numpy()), jnp.asarray(y0.numpy())

    def right_hand_side(t, y, args):
        return jnp.stack([y[1], MU * (1 - y[0] ** 2) * y[1] - y[0]])

    @jax.jit
    @jax.vmap
    def solve(y):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(right_hand_side),
            diffrax.Dopri5(),
            0.0,
            PERIOD,
            None,
            y,
            saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5),
        ).ys

    return lambda: solve(states).block_until_ready()


def torchode_run(field, y0, ts):
    try:
        import torchode
    except ImportError:
        return None
    term = torchode.ODETerm(field)
    controller = torchode.IntegralController(atol=1e-5, rtol=1e-5, term=term)
    solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), controller)
    problem = torchode.InitialValueProblem(y0=y0, t_eval=ts.expand(len(y0), -1).contiguous())
    return lambda: solver.solve(problem)


def case(batch, repeats, engines):
    from torchdiffeq import odeint

    y0, ts = starts(batch), torch.linspace(0.0, PERIOD, OUTPUTS)
    problem = ude.ODEProblem(field, y0, (0.0, PERIOD), batched=True)

    def ours(engine):
        return lambda: ude.solve(problem, ude.Dopri5(), save_at=ts, rtol=1e-5, atol=1e-5, engine=engine, dense=False)

    runs = {engine: ours(engine) for engine in engines}
    runs["torchdiffeq"] = lambda: odeint(field, y0, ts, rtol=1e-5, atol=1e-5, method="dopri5")
    peers = {"torchode": torchode_run(field, y0, ts), "diffrax (jit)": diffrax_run(y0, ts)}
    runs |= {name: run for name, run in peers.items() if run is not None}
    with torch.no_grad():
        first = {engine: once(runs[engine]) for engine in engines}
        seconds = side_by_side(runs, repeats)
    return [
        Row(
            task=f"van der Pol, batch {batch}, {OUTPUTS} outputs, whole solve, {engine}",
            ours=seconds[engine],
            peer=seconds[peer],
            peer_name=peer,
            target=(">= 30" if peer.startswith("torch") else ">= 0.5" if batch == 256 else ">= 1")
            if engine == "loop"
            else "",
            note=f"first call {first[engine]:.1f} s" if peer == "torchdiffeq" else "",
        )
        for engine in engines
        for peer in ("torchdiffeq", "torchode", "diffrax (jit)")
        if peer in runs
    ]


def run(*, smoke: bool) -> list[Row]:
    if smoke:
        return case(8, repeats=1, engines=("loop",))
    return [row for batch in (256, 4096) for row in case(batch, repeats=9, engines=("loop", "eager"))]
