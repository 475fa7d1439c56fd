"""How every speed figure here is taken."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

Run = Callable[[], object]
OPTIONAL = ("diffrax", "jax", "torchode")
"""Peers that need not be installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: two runs of the same task in one process.

    Args:
        task: What was done, with sizes, tolerance and float width.
        ours: Median seconds of this library.
        peer: Median seconds of the peer; None if there is none or it is not installed.
        peer_name: Who the peer is.
        target: The ratio peer / ours that was aimed at (or another bound, in words).
        note: Compile seconds, agreement of results, counts.
    """

    task: str
    ours: float
    peer: float | None = None
    peer_name: str = ""
    target: str = ""
    note: str = ""


def once(run: Run) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


STRETCH = 0.02
"""Seconds for which a short run is repeated before it is another one's turn."""


def stretch(run: Run) -> float:
    """Mean seconds of a run repeated for a while, after one that warms the caches again."""
    seconds = once(run)
    if seconds > STRETCH:
        return seconds
    count = 0
    start = time.perf_counter()
    while (passed := time.perf_counter() - start) < STRETCH:
        run()
        count += 1
    return passed / count


def side_by_side(runs: Mapping[str, Run], repeats: int = 9, warm_up: int = 2) -> dict[str, float]:
    """Median seconds of each run, taken in turns so that a noisy moment hits all of them alike."""
    for run in runs.values():
        for _ in range(warm_up):
            run()
    gc.collect()
    gc.disable()
    try:
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                seconds[name].append(stretch(run))
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in seconds.items()}


def installed(peers: Mapping[str, Callable[[], Run]]) -> dict[str, Run]:
    """The runs of those peers that are installed; each is given by a function that imports the peer and returns it."""
    runs = {}
    for name, build in peers.items():
        try:
            runs[name] = build()
        except ModuleNotFoundError as missing:
            if missing.name not in OPTIONAL:
                raise
    return runs


def against_peers(
    task: str,
    seconds: Mapping[str, float],
    engines: Iterable[str],
    *,
    targets: Mapping[tuple[str, str], str] | None = None,
    notes: Mapping[str, str] | None = None,
) -> list[Row]:
    """One row for each engine against each other run, with its target; an engine's note stands in its first row."""
    engines, targets, notes = list(engines), targets or {}, notes or {}
    peers = [name for name in seconds if name not in engines]
    return [
        Row(
            task=f"{task}, {engine}",
            ours=seconds[engine],
            peer=seconds[peer],
            peer_name=peer,
            target=targets.get((engine, peer), ""),
            note=notes.get(engine, "") if peer == peers[0] else "",
        )
        for engine in engines
        for peer in peers
    ]


def gradient_gap(module: torch.nn.Module, run: Run, reference: Run) -> float:
    """Norm of the difference between the gradients that two runs leave in a module, relative to the reference's."""
    reference()
    expected = flat_gradient(module)
    run()
    return float((flat_gradient(module) - expected).norm() / expected.norm())


def flat_gradient(module: torch.nn.Module) -> torch.Tensor:
    """All gradients of a module's parameters as one new vector."""
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table."""
    lines = [
        "| task | ours [ms] | peer [ms] | peer | peer / ours | target | note |",
        "|---|---:|---:|---|---:|---|---|",
    ]
    for row in rows:
        peer = "" if row.peer is None else f"{1e3 * row.peer:.4g}"
        ratio = "" if row.peer is None else f"{row.peer / row.ours:.2f}"
        cells = (row.task, f"{1e3 * row.ours:.4g}", peer, row.peer_name, ratio, row.target, row.note)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
