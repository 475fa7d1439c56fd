"""How every speed figure here is taken."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


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


def once(run: Callable[[], object]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


STRETCH = 0.02
"""Seconds for which a short run is repeated before it is another one's turn."""


def stretch(run: Callable[[], object]) -> float:
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


def side_by_side(runs: dict[str, Callable[[], object]], repeats: int = 9, warm_up: int = 2) -> dict[str, float]:
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
