"""Robertson's problem with 1,000 sets of rates: one batch against a loop over SciPy's BDF, at equal error."""

from __future__ import annotations

import numpy as np
import torch

import ude
from benchmarks.speed.measure import Row, once, side_by_side

END = 1e5
SCALES = (1.0, 1e-4, 1.0)
SCIPY_SAMPLES = 20


def field(t, y, p):
    slow, fast, fastest = p[:, 0] * y[:, 0], p[:, 2] * y[:, 1] * y[:, 2], p[:, 1] * y[:, 1] ** 2
    return torch.stack([-slow + fast, slow - fast - fastest, fastest], dim=-1)


def rates(count):
    generator = torch.Generator().manual_seed(0)
    spread = torch.exp(0.5 * torch.randn(count, 3, generator=generator, dtype=torch.float64))
    return torch.tensor([0.04, 3e7, 1e4], dtype=torch.float64) * spread


def scipy_end(p, rtol, method="BDF"):
    from scipy.integrate import solve_ivp

    def right_hand_side(t, y):
        slow, fast, fastest = p[0] * y[0], p[2] * y[1] * y[2], p[1] * y[1] ** 2
        return [-slow + fast, slow - fast - fastest, fastest]

    atol = 1e-2 * rtol * np.array(SCALES)
    return solve_ivp(right_hand_side, (0.0, END), [1.0, 0.0, 0.0], method=method, rtol=rtol, atol=atol).y[:, -1]


def ours_end(p, rtol, engine):
    start = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(len(p), 3)
    problem = ude.ODEProblem(field, start, (0.0, END), p=p, batched=True)
    atol = 1e-2 * rtol * torch.tensor(SCALES, dtype=torch.float64)
    with torch.no_grad():
        return ude.solve(problem, ude.Rodas5P(), save_at=[END], rtol=rtol, atol=atol, dense=False, engine=engine).ys[-1]


def error(ends, reference):
    return float(np.sqrt(np.mean(((ends - reference) / np.abs(reference)) ** 2)))


def run(*, smoke: bool) -> list[Row]:
    count = 4 if smoke else 1000
    p = rates(count)
    few = min(count, SCIPY_SAMPLES)
    reference = np.stack([scipy_end(row, 1e-12, "Radau") for row in p[:few].numpy()])
    our_rtol, their_rtol = 1e-4, 1e-6
    theirs = np.stack([scipy_end(row, their_rtol) for row in p[:few].numpy()])
    rows = []
    engines = ("eager",) if smoke else ("eager", "compiled")
    for engine in engines:
        first = once(lambda engine=engine: ours_end(p, our_rtol, engine))
        ours = ours_end(p, our_rtol, engine)[:few].numpy()
        seconds = side_by_side(
            {
                "ours": lambda engine=engine: ours_end(p, our_rtol, engine),
                "scipy": lambda: [scipy_end(row, their_rtol) for row in p[:few].numpy()],
            },
            repeats=1 if smoke else 3,
            warm_up=0,
        )
        note = (
            f"rtol {our_rtol:.0e} against {their_rtol:.0e}: relative errors {error(ours, reference):.0e} and "
            f"{error(theirs, reference):.0e}; SciPy timed on {few} sets; first call {first:.1f} s"
        )
        rows.append(
            Row(
                task=f"Robertson to t = 1e5, {count} sets of rates, Rodas5P, {engine}",
                ours=seconds["ours"],
                peer=seconds["scipy"] * count / few,
                peer_name="SciPy BDF, one by one",
                target=">= 100",
                note=note,
            )
        )
    return rows
