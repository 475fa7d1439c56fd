"""Run the work-precision benchmark: error at the end against evaluations and seconds, by method and tolerance.

    python -m benchmarks.precision [--smoke] [--out FOLDER]

Writes `precision.md` (a table) and one picture for each kind of problem into the folder. The reference is SciPy at a
tolerance of 1e-13; errors are the root mean square over components of the error relative to their largest value.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.precision.figure import draw
from benchmarks.precision.measure import measure
from benchmarks.precision.problems import PROBLEMS
from benchmarks.speed.__main__ import header


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one tolerance and one problem of each kind")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = (PROBLEMS[0], PROBLEMS[4]) if arguments.smoke else PROBLEMS
    points = []
    for problem in chosen:
        print(f"-- {problem.name}", flush=True)
        points += measure(problem, smoke=arguments.smoke)
    rows = [
        "| problem | method | library | rtol | error | evaluations | Jacobians | steps | time [ms] |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
        *(point.row() for point in points),
    ]
    text = header() + "\n\n" + "\n".join(rows) + "\n"
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "precision.md").write_text(text)
        draw(points, arguments.out)


if __name__ == "__main__":
    main()
