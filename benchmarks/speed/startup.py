"""Seconds that `import ude` adds to `import torch`."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.speed.measure import Row

SCRIPT = """
import time, torch
start = time.perf_counter(); import ude; spent = time.perf_counter() - start
import sys
heavy = [m for m in ("scipy", "sympy", "sklearn", "pysindy", "matplotlib", "torchdiffeq", "jinja2") if m in sys.modules]
print(spent, ",".join(heavy))
"""


def run(*, smoke: bool) -> list[Row]:
    seconds, heavy = [], set()
    for _ in range(1 if smoke else 7):
        result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
        spent, *packages = result.stdout.split()
        seconds.append(float(spent))
        heavy.update(packages)
    note = (
        "imports none of SciPy, SymPy, scikit-learn, pysindy, matplotlib" if not heavy else f"imports {sorted(heavy)}"
    )
    return [Row(task="import ude, beyond import torch", ours=statistics.median(seconds), target="<= 300 ms", note=note)]
