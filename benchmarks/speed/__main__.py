"""Run the speed benchmarks and print one table.

    python -m benchmarks.speed [--smoke] [--only NAME ...] [--out FILE]

`--smoke` runs every benchmark in its smallest form, to show that it works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.speed.measure import table

NAMES = (
    "startup",
    "lotka_volterra",
    "spiral",
    "van_der_pol",
    "dense_saves",
    "gpu_chunks",
    "robertson",
    "bouncing_balls",
    "wide_field",
    "compat",
    "linear_layers",
    "replicates",
    "stlsq",
    "memory",
    "regularized",
    "operators",
    "ode_series",
)
PACKAGES = ("torch", "torchdiffeq", "torchode", "diffrax", "folx", "jax", "pysindy", "scipy")


def processor() -> str:
    """The processor's name and, of the vector instructions that torch would use, the widest."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def header() -> str:
    """Where and with what the figures were taken."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return (
        f"commit {commit.stdout.strip() or 'unknown'}, {platform.machine()}, {processor()}, {os.cpu_count()} cores, "
        f"1 thread, Python {platform.python_version()}, {', '.join(found)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = [header()]
    for name in arguments.only:
        print(f"-- {name}", flush=True)
        rows = importlib.import_module(f"benchmarks.speed.{name}").run(smoke=arguments.smoke)
        parts.append(f"## {name}\n\n{table(rows) if rows else 'It needs a GPU.'}")
        print(parts[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
