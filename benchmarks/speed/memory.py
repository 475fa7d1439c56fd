"""Peak memory of a gradient over N steps, with and without checkpointing; each case in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.speed.measure import Row

SCRIPT = """
import sys, time, torch, ude
torch.set_num_threads(1)
steps, adjoint = int(sys.argv[1]), sys.argv[2]
w = torch.full((64, 64), 1e-3, dtype=torch.float64, requires_grad=True)
y0 = torch.ones(256, 64, dtype=torch.float64)

def high_water():
    # Of this program alone: what getrusage reports begins with the size of the program that started it.
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024

def gradient(n):
    problem = ude.ODEProblem(lambda t, y: torch.tanh(y @ w) - y, y0, (0.0, 1.0))
    solution = ude.solve(problem, ude.RK4(), save_at=torch.tensor([1.0], dtype=torch.float64), dt=1.0 / n,
        controller=ude.FixedStep(), adjoint=getattr(ude, adjoint)(), dense=False, max_steps=10 * n)
    solution.ys.sum().backward()

gradient(2)
before = high_water()
start = time.perf_counter()
gradient(steps)
print(high_water() - before, time.perf_counter() - start)
"""


# With these settings the C library gives freed blocks back at once, so that what is seen is what is in use.
IN_USE = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def peak(steps, adjoint, **environment):
    """MiB above the process's own size, and seconds."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(steps), adjoint],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    mib, seconds = result.stdout.split()
    return float(mib), float(seconds)


def run(*, smoke: bool) -> list[Row]:
    rows = []
    for steps in (20,) if smoke else (100, 1_000, 10_000):
        in_use, _ = peak(steps, "Checkpointed", **IN_USE)
        mib, seconds = peak(steps, "Checkpointed")
        note = f"checkpointed: peak {in_use:.0f} MiB in use, {mib:.0f} MiB held by the process"
        direct = None
        if steps <= 1_000:  # 10,000 steps without checkpointing do not fit into memory
            in_use, _ = peak(steps, "Direct", **IN_USE)
            mib, direct = peak(steps, "Direct")
            note += f"; direct: {in_use:.0f} and {mib:.0f} MiB"
        rows.append(
            Row(
                task=f"RK4 gradient, {steps} steps, 256 x 64 states",
                ours=seconds,
                peer=direct,
                peer_name="direct" if direct else "",
                target="peak ~ sqrt(N), + 32 KiB a step of autograd's own records",
                note=note,
            )
        )
    return rows
