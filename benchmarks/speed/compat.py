"""Programs written for torchdiffeq, as they are and with the import line of `ude.compat`."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.speed.measure import Row, against_peers, once, side_by_side
from benchmarks.speed.van_der_pol import field as van_der_pol
from benchmarks.speed.van_der_pol import starts
from ude import compat

TIGHT = {"rtol": 1e-5, "atol": 1e-5}


class Field(nn.Module):
    def __init__(self, *widths):
        super().__init__()
        torch.manual_seed(0)
        inner = nn.Linear(widths[0], widths[1]), nn.Tanh(), nn.Linear(widths[1], widths[2])
        self.net = nn.Sequential(*inner)

    def forward(self, t, y):
        return self.net(y)


def gradient(library, field, y0, ts, solver="odeint", **options):
    def run():
        field.zero_grad()
        getattr(library, solver)(field, y0, ts, **options).square().mean().backward()

    return run


def without_gradient(library, field, y0, ts, **options):
    def run():
        with torch.no_grad():
            library.odeint(field, y0, ts, **options)

    return run


def programs():
    """Each by its name: what runs it, with which arguments, and the engines worth trying."""
    small, wide, ts = Field(2, 50, 2), Field(64, 128, 64), torch.linspace(0.0, 1.5, 20)
    y0, states = torch.tensor([2.0, 0.0]), torch.randn(128, 64, generator=torch.Generator().manual_seed(0))
    ends = torch.tensor([0.0, 10.0])
    fixed = {"method": "rk4", "options": {"step_size": 0.03}}
    return {
        "neural ODE 2-50-2, 20 states, gradient": (gradient, (small, y0, ts), {}, ("loop", "compiled")),
        "the same by odeint_adjoint": (gradient, (small, y0, ts, "odeint_adjoint"), {}, ()),
        "the same by odeint, 50 steps of rk4": (gradient, (small, y0, ts), fixed, ()),
        "van der Pol, 256 states, t = 10, 1e-5, no gradient": (
            without_gradient,
            (van_der_pol, starts(256), ends),
            TIGHT,
            ("loop", "compiled"),
        ),
        "network 64-128-64, 128 states, 1e-5, gradient": (gradient, (wide, states, ts[::19]), TIGHT, ("compiled",)),
    }


def case(name, program, repeats):
    import torchdiffeq

    build, arguments, options, engines = program
    runs = {"ude.compat": build(compat, *arguments, **options)}
    for engine in engines:
        runs[engine] = build(compat, *arguments, **{**options, "options": {"engine": engine}})
    first = {run: once(runs[run]) for run in runs}
    seconds = side_by_side({**runs, "torchdiffeq": build(torchdiffeq, *arguments, **options)}, repeats)
    notes = {run: f"first call {first[run]:.1f} s" for run in engines}
    return against_peers(name, seconds, runs, notes=notes)


def run(*, smoke: bool) -> list[Row]:
    everything = programs()
    if smoke:
        name = "the same by odeint, 50 steps of rk4"
        return case(name, everything[name], repeats=1)
    return [row for name, program in everything.items() for row in case(name, program, repeats=9)]
